"""Skipped tests: which may be skipped in CI and why, and what has to be there for each to run."""

from collections import Counter
from typing import NamedTuple


class Reason(NamedTuple):
    """What a skip's reason begins with, how to have the test run, and why CI may go without it (never, where empty)."""

    begins: str
    remedy: str
    allowed: str = ""


REASONS = (
    Reason("the publisher's real months", "put them into ../shared/data/tlc", "they weigh gigabytes"),
    Reason("this XGBoost may find a GPU", "install xgboost-cpu, the locked one", "the test is about machines without one"),
    Reason("other systems do not say", "run on Linux", "the lock is for all systems"),
    Reason("only at full scale", "make campaign", "it costs minutes; the weekly campaign runs it"),
    Reason("images need root", "be root; apt-get install buildah skopeo debootstrap docker-registry", "CI's user is not root"),
    Reason("chromium", "apt-get install chromium"),
    Reason("nginx", "apt-get install nginx-light"),
    Reason("prometheus", "apt-get install prometheus"),
    Reason("promtool", "apt-get install prometheus"),
    Reason("terraform", "install Terraform 1.11 or newer", "it is no Debian package; `make terraform` needs it"),
    Reason("PostgreSQL's", "apt-get install postgresql"),
    Reason("PostgreSQL refuses", "run as a user other than root, or add the user postgres"),
    Reason("could not import", "make setup"),
)  # fmt: skip


def known(reason: str) -> Reason:
    """Return what is known of a skip; nothing of one that is not on the list."""
    return next((one for one in REASONS if reason.startswith(one.begins)), Reason("", "see its test"))


def forbidden_in_ci(reasons: Counter[str]) -> list[str]:
    """Return the reasons for which no test may be skipped where ``CI`` is set."""
    return [reason for reason in reasons if not known(reason).allowed]


def describe(reasons: Counter[str]) -> str:
    """Return in one line what was skipped, and how to have it."""
    return "; ".join(f"{n} skipped: {reason} ({known(reason).remedy})" for reason, n in sorted(reasons.items()))
