import re

import pytest

from nbimg import errors
from nbimg.backends.hunyuan_codes import KINDS, Kind, Stage, error, kind_of
from nbimg.credentials.keys import Secret

BY_KIND = {
    Kind.CROWDED: """RequestLimitExceeded.JobNumExceed FailedOperation.EngineServerLimitExceeded LimitExceeded""",
    Kind.RATE: """RequestLimitExceeded RequestLimitExceeded.UinLimitExceeded RequestLimitExceeded.IPLimitExceeded
        RequestLimitExceeded.GlobalRegionUinLimitExceeded 429001""",
    Kind.MONEY: """ResourceUnavailable.InArrears ResourceUnavailable.LowBalance ResourceUnavailable.StopUsing
        ResourceUnavailable.NotExist ResourceUnavailable.Delivering ResourcesSoldOut.ChargeStatusException
        ResourceInsufficient.ChargeResourceExhaust FailedOperation.FreeResourcePackExhausted
        FailedOperation.ResourcePackExhausted FailedOperation.ServiceNotActivated FailedOperation.ServiceStop
        FailedOperation.ServiceStopArrears FailedOperation.ServiceStopAnything FailedOperation.UserUnAuthError
        401007 401008 403004 FREE_QUOTA_EXHAUSTED""",
    Kind.AUTH: """AuthFailure.SecretIdNotFound AuthFailure.SignatureFailure AuthFailure.SignatureExpire
        AuthFailure.InvalidAuthorization AuthFailure.TokenFailure AuthFailure.MFAFailure AuthFailure
        AuthFailure.UnauthorizedOperation UnauthorizedOperation 401002 403001 403002 403005""",
    Kind.REFUSED: """OperationDenied.TextIllegalDetected OperationDenied.ImageIllegalDetected
        FailedOperation.ModerationFailed FailedOperation.GenerateImageFailed 451001""",
    Kind.INPUT: """InvalidParameter InvalidParameter.InvalidParameter InvalidParameterValue.TextLengthExceed
        InvalidParameterValue.ImageEmpty InvalidParameterValue.UrlIllegal InvalidParameterValue.StyleConflict
        InvalidParameterValue.LogoParamErr InvalidParameterValue.ParameterValueError MissingParameter
        UnknownParameter FailedOperation.ImageDecodeFailed FailedOperation.ImageDownloadError
        FailedOperation.ImageResolutionExceed FailedOperation.ImageSizeExceed
        FailedOperation.RequestEntityTooLarge RequestSizeLimitExceeded 400001 400002 400004""",
    Kind.TRANSIENT: """InternalError InternalError.Anything FailedOperation.InnerError FailedOperation.ServerError
        FailedOperation.Unknown FailedOperation.ConsoleServerError FailedOperation.EngineServerError
        ServiceUnavailable""",
    Kind.LOST: """FailedOperation.RequestTimeout FailedOperation.RpcFail FailedOperation.EngineRequestTimeout""",
    Kind.GONE: """ActionOffline InvalidAction NoSuchVersion UnsupportedOperation UnsupportedRegion""",
    Kind.FORGOTTEN: "FailedOperation.JobNotExist",
    Kind.OTHER: "FailedOperation.Mystery Mystery 999999",
}
CODES = [(code, kind) for kind, codes in BY_KIND.items() for code in codes.split()]


@pytest.mark.parametrize(("code", "kind"), CODES)
def test_each_code_has_its_meaning(code, kind):
    assert kind_of(code) is kind


def test_every_code_of_the_official_client_is_known():
    codes = pytest.importorskip("tencentcloud.aiart.v20221229.errorcodes")
    listed = [value for name, value in vars(codes).items() if name.isupper()]
    assert len(listed) > 30
    assert [code for code in listed if kind_of(code) is Kind.OTHER] == []
    assert {*listed} <= {code for code, _ in CODES}


@pytest.mark.parametrize("code", [code for code in KINDS if code.startswith("FailedOperation.")])
def test_a_code_without_its_first_part_means_the_same(code):
    assert kind_of(code.rpartition(".")[2]) is KINDS[code]


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Kind.INPUT), (401, Kind.AUTH), (402, Kind.MONEY), (429, Kind.RATE),
                         (451, Kind.REFUSED), (418, Kind.OTHER), (None, Kind.OTHER)]
)  # fmt: skip
def test_a_code_that_nobody_knows_is_judged_by_its_status(status, kind):
    assert kind_of("new", None, status=status) is kind


def test_the_first_code_that_is_known_counts():
    assert kind_of(None, "new", "429001", "400001", status=500) is Kind.RATE


#: Kind → what it is at a create, at a poll, as the end of a job; and which of them may be tried again.
BECOMES = {
    Kind.CROWDED: ("BusyError!", "BusyError!", "JobFailedError!"),
    Kind.RATE: ("BusyError!", "BusyError!", "JobFailedError!"),
    Kind.MONEY: ("QuotaExceededError", "QuotaExceededError", "QuotaExceededError"),
    Kind.AUTH: ("KeyRejectedError", "KeyRejectedError", "KeyRejectedError"),
    Kind.REFUSED: ("ContentRefusedError", "ReplyError", "ContentRefusedError"),
    Kind.INPUT: ("RejectedError", "ReplyError", "RejectedError"),
    Kind.TRANSIENT: ("JobFailedError!", "UnreachableError!", "JobFailedError!"),
    Kind.LOST: ("OutcomeUnknownError", "UnreachableError!", "JobFailedError!"),
    Kind.GONE: ("RejectedError", "RejectedError", "RejectedError"),
    Kind.FORGOTTEN: ("JobFailedError", "JobFailedError", "JobFailedError"),
    Kind.OTHER: ("RejectedError", "ReplyError", "JobFailedError"),
}


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("place", range(3))
def test_a_meaning_becomes_an_error_by_when_it_came(kind, place):
    stage = (Stage.CREATE, Stage.POLL, Stage.JOB)[place]
    made = error(kind, "A.B", "what\nthey say", stage, job_id="j")
    expected = BECOMES[kind][place]
    assert type(made) is getattr(errors, expected.rstrip("!"))
    assert made.transient is expected.endswith("!")
    assert (made.backend, made.job_id) == ("hunyuan", "j")
    assert re.search(r"what they say \(A\.B\)", made.message)


def test_too_many_at_once_is_told_from_too_fast():
    assert error(Kind.CROWDED, "x", "", Stage.CREATE).crowded
    assert not error(Kind.RATE, "x", "", Stage.CREATE).crowded


def test_no_credential_is_in_a_message():
    Secret("AKIDplanted-in-a-reply")
    made = error(Kind.AUTH, "x", "no AKIDplanted-in-a-reply here", Stage.CREATE)
    assert "planted" not in str(made)
