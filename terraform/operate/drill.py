"""Alarm drill: passes only if ALARM and OK of every alarm were delivered to the queue, and every person has confirmed."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import boto3

from terraform.operate.workspace import MODULE, Terraform

STATES = ("ALARM", "OK")


def check_wiring(cloudwatch: Any, sns: Any, topic: str, queue_arn: str, names: list[str]) -> list[str]:
    """Return what stands in the way: alarms that are missing or wired wrongly, a topic without the queue, unconfirmed addresses."""
    there = {one["AlarmName"]: one for one in cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"]}
    faults = [f"alarm {name} is missing" for name in names if name not in there]
    for name, one in there.items():
        if not one.get("ActionsEnabled", True):
            faults.append(f"alarm {name} has its actions switched off")
        faults += [
            f"alarm {name} has not the topic among its {kind}: {', '.join(one[kind]) or 'there is none'}"
            for kind in ("AlarmActions", "OKActions")
            if topic not in one[kind]
        ]
    subscribed = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    if not [one for one in subscribed if one["Endpoint"] == queue_arn and one["SubscriptionArn"].startswith("arn:")]:
        faults.append(f"the queue {queue_arn} is not subscribed to {topic}, or not confirmed")
    if not [one for one in subscribed if one["Protocol"] != "sqs"]:
        faults.append(f"no person is subscribed to {topic}")
    return faults + [
        f"{one['Endpoint']} has not confirmed" for one in subscribed if not one["SubscriptionArn"].startswith("arn:")
    ]


def _receive(sqs: Any, queue: str, seen: set[tuple[str, str]]) -> None:
    for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", []):
        text = json.loads(message["Body"]).get("Message", "{}")
        told = json.loads(text) if text.startswith("{") else {}
        seen.add((told.get("AlarmName", ""), f"{told.get('NewStateValue')} {told.get('NewStateReason')}"))
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


def drill(cloudwatch: Any, sns: Any, sqs: Any, outputs: dict[str, Any], mark: str, seconds: float = 120) -> list[str]:
    """Set every alarm to ALARM and to OK, wait for the messages with our ``mark``, and return what went wrong; nothing is a pass."""
    alarms = outputs["alarms"]
    queue = alarms["queue_url"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    if faults := check_wiring(cloudwatch, sns, alarms["topic_arn"], queue_arn, alarms["names"]):
        return faults
    for state in STATES:
        for name in alarms["names"]:
            cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason=mark)
    wanted = {(name, f"{state} {mark}") for name in alarms["names"] for state in STATES}
    seen: set[tuple[str, str]] = set()
    end = time.monotonic() + seconds
    while wanted - seen and time.monotonic() < end:
        _receive(sqs, queue, seen)
    return [
        f"{state.split()[0]} of {name} was not delivered in {seconds:.0f} s" for name, state in sorted(wanted - seen)
    ]


def main() -> int:
    """Set every alarm off and on again, and see that both were delivered; tell the people before, they are written to."""
    parser = argparse.ArgumentParser(prog="python -m terraform.operate.drill", description=main.__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=MODULE, help="initialised folder of the module")
    outputs = Terraform(parser.parse_args().folder, {}).outputs()
    mark = f"drill {int(time.time())}"
    faults = drill(*(boto3.client(name) for name in ("cloudwatch", "sns", "sqs")), outputs, mark)
    print("\n".join(faults) or f"passed: {len(outputs['alarms']['names'])} alarms, each told and its end too ({mark})")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
