"""Bucket of the state, which Terraform cannot make for itself: versioned, encrypted, closed to the public."""

import argparse
import contextlib
from typing import Any

import boto3


def make_state_bucket(s3: Any, name: str, region: str) -> None:
    """Make the bucket, or close and version one of ours that is there; may be repeated."""
    place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=name, **place)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=dict.fromkeys(closed, True))
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}, "BucketKeyEnabled": True}
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})


def main() -> None:
    """Make the bucket that environments/*.s3.tfbackend names."""
    parser = argparse.ArgumentParser(prog="python -m terraform.operate.state_bucket", description=main.__doc__)
    parser.add_argument("bucket")
    parser.add_argument("--region", default="us-east-1")
    given = parser.parse_args()
    make_state_bucket(boto3.client("s3", region_name=given.region), given.bucket, given.region)
    print(f"{given.bucket} is there: versioned, encrypted, closed to the public")


if __name__ == "__main__":
    main()
