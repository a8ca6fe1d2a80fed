"""What unmodified SDKs with placeholder keys do to services other than S3, and to S3 with an SDK's defaults:
services.py '{"url":…,"token":…,"authorities":…}'. Prints what came of each step."""
import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

settings = json.loads(sys.argv[1])


def client(service, **options):
    return boto3.client(
        service,
        endpoint_url=settings["url"],
        region_name=settings.get("region", "us-east-1"),
        aws_access_key_id="placeholder",
        aws_secret_access_key="placeholder",
        aws_session_token=settings["token"],
        verify=settings["authorities"],
        config=Config(retries={"max_attempts": 1}, **options),
    )


outcome = {}


def step(name, work):
    try:
        outcome[name] = "ok" if work() else "no"
    except ClientError as error:
        outcome[name] = error.response["Error"]["Code"]


dynamodb, sqs, s3 = client("dynamodb"), client("sqs"), client("s3", s3={"addressing_style": "path"})
step(
    "table",
    lambda: dynamodb.create_table(
        TableName="bills",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    ),
)
item = {"id": {"S": "ü 1/2"}, "total": {"N": "12"}, "note": {"S": "x" * 100_000}}
step("put item", lambda: dynamodb.put_item(TableName="bills", Item=item))
step("get item", lambda: dynamodb.get_item(TableName="bills", Key={"id": item["id"]})["Item"] == item)
step("scan", lambda: dynamodb.scan(TableName="bills")["Count"] == 1)
step("queue", lambda: sqs.create_queue(QueueName="work"))
url = f"{settings['url']}/123456789012/work"
step("send", lambda: sqs.send_message(QueueUrl=url, MessageBody="a & b = ü"))
step("receive", lambda: sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "a & b = ü")
if settings.get("s3"):
    step("bucket", lambda: s3.create_bucket(Bucket="defaults"))
    step("put object", lambda: s3.put_object(Bucket="defaults", Key="a b/ü+~", Body=b"x" * 200_000))
    step("get object", lambda: s3.get_object(Bucket="defaults", Key="a b/ü+~")["Body"].read() == b"x" * 200_000)
print(json.dumps(outcome))
