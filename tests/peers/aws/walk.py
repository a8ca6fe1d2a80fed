"""What an unmodified SDK with placeholder keys does to a bucket: walk.py '{"url":…,"token":…,"authorities":…,"bucket":…}'

Prints what came of each step: `ok`, or the error's code.
"""
import hashlib
import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

settings = json.loads(sys.argv[1])
bucket = settings["bucket"]
s3 = boto3.client(
    "s3",
    endpoint_url=settings["url"],
    region_name=settings.get("region", "us-east-1"),
    aws_access_key_id="placeholder",
    aws_secret_access_key="placeholder",
    aws_session_token=settings["token"],
    verify=settings["authorities"],
    config=Config(
        retries={"max_attempts": 1},
        s3={"addressing_style": "path"},
        request_checksum_calculation=settings.get("checksums", "when_required"),
        response_checksum_validation=settings.get("checksums", "when_required"),
    ),
)
outcome = {}


def step(name, work):
    try:
        found = work()
        outcome[name] = "ok" if found is None or found is True else found
    except ClientError as error:
        outcome[name] = error.response["Error"]["Code"]


def put(key, body):
    s3.put_object(Bucket=bucket, Key=key, Body=body)


def same(key, body, **options):
    return s3.get_object(Bucket=bucket, Key=key, **options)["Body"].read() == body


def multipart(key, pieces):
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    parts = []
    for number, piece in enumerate(pieces, 1):
        tag = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=piece)["ETag"]
        parts.append({"ETag": tag, "PartNumber": number})
    s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    return same(key, b"".join(pieces))


ODD = ["a b/ä+~.txt", "a//b/c", "q?x=1&y=%2F", "(paren)'s!*", "percent%20sign", "üñí/∆", "semi;colon=eq,comma@at:colon"]

step("create", lambda: s3.create_bucket(Bucket=bucket) and None)
step("put", lambda: put("plain.txt", b"hello"))
step("get", lambda: same("plain.txt", b"hello"))
step("head", lambda: s3.head_object(Bucket=bucket, Key="plain.txt")["ContentLength"] == 5)
step("range", lambda: same("plain.txt", b"ell", Range="bytes=1-3"))
step("empty", lambda: put("empty", b"") or same("empty", b""))
for key in ODD:
    step("odd " + key, lambda: put(key, key.encode()) or same(key, key.encode()))
step("multipart", lambda: multipart("large", [bytes([n]) * (5 << 20) for n in range(3)]))
step("metadata", lambda: s3.put_object(Bucket=bucket, Key="meta", Body=b"x", Metadata={"a": "b   c"}) and None)
step("list", lambda: len(s3.list_objects_v2(Bucket=bucket, Prefix="a", MaxKeys=10).get("Contents", [])) == 2)
step("list encoded", lambda: s3.list_objects_v2(Bucket=bucket, Prefix="a b/ä+", Delimiter="/")["KeyCount"] == 1)
step("copy", lambda: s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "plain.txt"}) and None)
step("delete", lambda: s3.delete_object(Bucket=bucket, Key="plain.txt") and None)
step("gone", lambda: same("plain.txt", b""))
step("delete many", lambda: s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "empty"}, {"Key": "meta"}]}) and None)

if "large_bytes" in settings:
    size = settings["large_bytes"]
    block = hashlib.sha256(b"seed").digest() * (1 << 15)

    class Source:
        """A file of repeated blocks that is never in memory."""

        def __init__(self):
            self.at = 0

        def __len__(self):
            return size

        def tell(self):
            return self.at

        def seek(self, to, whence=0):
            self.at = to if whence == 0 else (self.at + to if whence == 1 else size + to)
            return self.at

        def read(self, count=-1):
            count = min(size - self.at, len(block) if count is None or count < 0 else count)
            start = self.at % len(block)
            data = (block[start:] + block * (count // len(block) + 1))[:count]
            self.at += count
            return data

    def large():
        expected = hashlib.sha256()
        source = Source()
        while data := source.read(1 << 20):
            expected.update(data)
        s3.put_object(Bucket=bucket, Key="huge", Body=Source())
        found = hashlib.sha256()
        for data in s3.get_object(Bucket=bucket, Key="huge")["Body"].iter_chunks(1 << 20):
            found.update(data)
        return found.digest() == expected.digest()

    step("huge", large)
print(json.dumps(outcome))
