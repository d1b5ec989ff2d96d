"""The sixteen cells of the maturity model: what each asks for, and so by which checks it is judged."""

from collections.abc import Callable

from taxi import maturity_needs as need
from taxi.maturity import AREAS, Check, Need
from taxi.repository import Repository

PEOPLE, CREATION, RELEASE, INTEGRATION = AREAS


def _all(*needs: Callable[[Repository], Need]) -> Check:
    return lambda repository: [one(repository) for one in needs]


_MADE = (need.data_gathered, need.compute_managed, need.experiments_tracked, need.versions_controlled)
_TEAM = (need.repeatable_jobs, need.shared_data, need.integration_by_engineers)
_RELEASED = (need.released_automatically, need.scoring_tested, need.released_by_cd, need.environments_managed)
_INTEGRATED = (
    need.every_release_tested,
    need.no_expert_needed,
    need.application_integration_tested,
    need.compared_live,
)

CELLS: dict[tuple[int, str], Check] = {
    (1, PEOPLE): _all(need.shared_repository),
    (1, CREATION): _all(need.data_gathered),
    (1, RELEASE): _all(need.scoring_versioned),
    (1, INTEGRATION): _all(
        need.model_tested, need.application_tested, need.integrated_and_tested, need.released_automatically
    ),
    (2, PEOPLE): _all(need.repeatable_jobs, need.shared_data),
    (2, CREATION): _all(*_MADE),
    (2, RELEASE): _all(need.scoring_tested, need.released_by_hand, need.release_owned),
    (2, INTEGRATION): _all(need.model_tested, need.application_tested),
    (3, PEOPLE): _all(*_TEAM),
    (3, CREATION): _all(*_MADE),
    (3, RELEASE): _all(*_RELEASED),
    (3, INTEGRATION): _all(*_INTEGRATED),
    (4, PEOPLE): _all(*_TEAM, need.markers, need.gathered_in_production),
    (4, CREATION): _all(*_MADE, need.retraining_triggered),
    (4, RELEASE): _all(*_RELEASED, need.integrated_and_tested),
    (4, INTEGRATION): _all(*_INTEGRATED, need.no_downtime),
}
