"""Champion and challenger on the same trips: everything that the comparison's notebook shows."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from taxi.config import Settings
from taxi.evaluate import score_models, slices
from taxi.model import DurationModel
from taxi.params import Params
from taxi.plan import Plan
from taxi.promotion import Decision, decide_promotion
from taxi.training import judging_trips, load_challenger, load_incumbent, train_challenger
from taxi.zones import read_zones


@dataclass(frozen=True)
class Compared:
    """The scores, the decision, and where the two models differ most."""

    note: str
    scores: pd.DataFrame
    decision: Decision
    disagreement: pd.DataFrame

    @property
    def gain_table(self) -> pd.DataFrame:
        """The gain and its interval, in percent of the RMSE before."""
        low, high = self.decision.interval
        return pd.DataFrame({"%": {"gain": self.decision.gain, "from": low, "to": high}}).mul(100).round(2)

    @property
    def decision_text(self) -> str:
        """The decision as Markdown."""
        return f"**{'Promoted' if self.decision.promote else 'Not promoted'}.** {self.decision.reason}"

    @property
    def result(self) -> dict[str, Any]:
        """What the notebook records."""
        return {
            "promote": self.decision.promote,
            "reason": self.decision.reason,
            "gain": self.decision.gain,
            "interval": list(self.decision.interval),
            "challenger": self.scores.loc["challenger"].to_dict(),
            "before": self.scores.iloc[0].to_dict(),
        }


def compare_models(settings: Settings, plan: Plan, params: Params) -> Compared:
    """Judge the challenger that 04-train left, by ``judge_challenger``."""
    return judge_challenger(settings, plan, params, load_incumbent(settings, plan), load_challenger(settings, plan))


def judge_challenger(
    settings: Settings, plan: Plan, params: Params, incumbent: DurationModel | None, challenger: DurationModel
) -> Compared:
    """Judge the challenger by trips that neither model has seen; against the floor where there is no champion."""
    trips, zones = judging_trips(settings, plan), read_zones(settings.zones)
    other = incumbent or train_challenger(settings, plan, params, kind="pair-median")
    against = "the champion" if incumbent else "the floor"
    before, after = other.predict(trips), challenger.predict(trips)
    decision = decide_promotion(
        trips,
        before["mean"],
        after["mean"],
        slices(trips, zones),
        params.promote,
        against=against,
        by_slice=incumbent is not None,
    )
    note = f"Judged on {plan.judged}: {len(trips):,} trips. The challenger was trained on {plan.trained}."
    if incumbent is None:
        note += " There is no champion yet, so it is held against the floor: the median of the zone pair."
    apart = (after["mean"] - before["mean"]).abs()
    shown = trips.loc[apart.nlargest(8).index, ["pickup", "PULocationID", "DOLocationID", "duration"]]
    minutes = {"duration": shown["duration"], "before": before["mean"], "challenger": after["mean"]}
    rounded = {name: values[shown.index].round(1) for name, values in minutes.items()}
    disagreement = shown.assign(**rounded).reset_index(drop=True)
    return Compared(
        note, score_models(trips["duration"], {against: before, "challenger": after}), decision, disagreement
    )
