"""Makes an OpenID provider and a role that its tokens may assume: trust.py '{"url":…,"issuer":…,"role":…,"policy":…}'"""
import base64
import hashlib
import json
import sys
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

settings = json.loads(sys.argv[1])
issuer = settings["issuer"]
with urllib.request.urlopen(issuer + "/.well-known/openid-configuration") as answer:
    jwks_uri = json.load(answer)["jwks_uri"]
with urllib.request.urlopen(jwks_uri) as answer:
    certificate = base64.b64decode(json.load(answer)["keys"][0]["x5c"][0])

iam = boto3.client(
    "iam",
    endpoint_url=settings["url"],
    region_name="us-east-1",
    aws_access_key_id="administrator",
    aws_secret_access_key=settings["secret"],
    config=Config(retries={"max_attempts": 1}),
)
try:
    iam.create_open_id_connect_provider(
        Url=issuer,
        ClientIDList=[settings["audience"]],
        ThumbprintList=[hashlib.sha1(certificate).hexdigest().upper()],
    )
except ClientError as error:
    if error.response["Error"]["Code"] != "EntityAlreadyExists":
        raise

host = issuer.split("://")[1]
text = lambda value: json.dumps(value, separators=(",", ":"))
trust = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Federated": ["arn:aws:iam:::oidc-provider/" + host]},
            "Action": ["sts:AssumeRoleWithWebIdentity"],
            "Condition": {"StringEquals": {host + ":aud": settings["audience"]}},
        },
        {
            "Effect": "Allow",
            "Principal": {"AWS": ["arn:aws:iam:::user/administrator"]},
            "Action": ["sts:AssumeRole"],
        },
    ],
}
iam.create_role(Path="/", RoleName=settings["role"], AssumeRolePolicyDocument=text(trust))
iam.put_role_policy(RoleName=settings["role"], PolicyName="rights", PolicyDocument=text(settings["policy"]))
print("{}")
