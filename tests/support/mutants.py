"""Mutants of the Terraform module: one change each, and the rule that must see it."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A change of one file of the module, and words of the message with which its rule fails."""

    file: str
    before: str
    after: str
    rule: str


MUTANTS = {
    "bucket-opened": Mutant("storage.tf", "block_public_policy     = true", "block_public_policy     = false", "closed to the public"),
    "versioning-dropped": Mutant("storage.tf", 'status = "Enabled"\n  }', 'status = "Suspended"\n  }', "every bucket versioned"),
    "plain-http-allowed": Mutant("storage.tf", 'effect    = "Deny"', 'effect    = "Allow"', "refuse requests without TLS"),
    "lock-loosened": Mutant("storage.tf", '"COMPLIANCE"', '"GOVERNANCE"', "nobody can delete before their time"),
    "force-destroy": Mutant("storage.tf", "force_destroy       = false", "force_destroy       = true", "something in it cannot be destroyed"),
    "key-without-rotation": Mutant("storage.tf", "enable_key_rotation     = true", "enable_key_rotation     = false", "a key that rotates"),
    "subject-widened": Mutant("github.tf", ":environment:${var.environment}-plan", ":*", "exactly one subject"),
    "subject-by-likeness": Mutant("github.tf", '"StringEquals"', '"StringLike"', "exactly one subject"),
    "star-with-write": Mutant("github.tf", "resources = [aws_lb_listener.https.arn]", 'resources = ["*"]', "only where something is read"),
    "every-action": Mutant("iam.tf", '"ecs:UpdateService"', '"ecs:*"', "every action by its whole name"),
    "passed-to-anybody": Mutant("iam.tf", '"ecs-tasks.amazonaws.com"]\n    }\n  }\n\n  statement {\n    sid       = "NotStarted"', '"ec2.amazonaws.com"]\n    }\n  }\n\n  statement {\n    sid       = "NotStarted"', "passed to ECS's tasks alone"),
    "service-writes": Mutant("iam.tf", "writes = { service = []", 'writes = { service = ["artifacts"]', "a service that only reads"),
    "tags-mutable": Mutant("images.tf", '"IMMUTABLE"', '"MUTABLE"', "tags that nobody moves"),
    "releases-expire": Mutant("images.tf", "countNumber = 10000", "countNumber = 5", "never a release"),
    "database-public": Mutant("database.tf", "publicly_accessible         = false", "publicly_accessible         = true", "encrypted, private, protected"),
    "database-without-tls": Mutant("database.tf", '"rds.force_ssl"\n    value = "1"', '"rds.force_ssl"\n    value = "0"', "refuses connections without TLS"),
    "alarm-removed": Mutant("observability.tf", "predictions-lost  = merge(local.own", "predictions-gone  = merge(local.own", "the thirteen alarms"),
    "end-not-told": Mutant("observability.tf", "ok_actions          = [aws_sns_topic.alarms.arn]", "ok_actions          = []", "and its end too"),
    "old-tls": Mutant("balancer.tf", "ELBSecurityPolicy-TLS13-1-2-2021-06", "ELBSecurityPolicy-2016-08", "TLS 1.3"),
    "anybody-a-proxy": Mutant("tasks.tf", 'join(",", aws_subnet.public[*].cidr_block)', '"0.0.0.0/0"', "from the balancer's subnets alone"),
    "description-refused": Mutant("network.tf", '"Jobs: nothing comes in"', '"Nothing comes into the jobs\' group"', "in the characters that EC2 takes"),
    "root-container": Mutant("tasks.tf", '"1000:1000"', '"0:0"', "containers without root"),
    "writable-root": Mutant("tasks.tf", "readonlyRootFilesystem = true", "readonlyRootFilesystem = false", "containers without root"),
    "no-rollback": Mutant("tasks.tf", "enable   = true\n    rollback = true", "enable   = true\n    rollback = false", "roll back by themselves"),
}  # fmt: skip
