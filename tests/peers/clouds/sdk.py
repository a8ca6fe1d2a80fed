"""Asks a cloud for a token as its vendor's own SDK does: sdk.py '{"with": …, …}' prints `{"token"}` or `{"error"}`."""
import json
import os
import sys

settings = json.loads(sys.argv[1])


def google():
    import google.auth.transport.requests
    import requests
    from google.auth import identity_pool

    session = requests.Session()
    session.verify = settings["authorities"]
    # Else a bundle that the environment names comes first.
    session.trust_env = False
    more = {}
    if settings.get("email"):
        url = f"{settings['url']}/v1/projects/-/serviceAccounts/{settings['email']}:generateAccessToken"
        options = {"token_lifetime_seconds": 600}
        more = {"service_account_impersonation_url": url, "service_account_impersonation_options": options}
    credentials = identity_pool.Credentials(
        audience=settings["audience"], subject_token_type="urn:ietf:params:oauth:token-type:jwt",
        token_url=settings["url"] + "/v1/token", credential_source={"file": settings["token_file"]},
        scopes=["https://www.googleapis.com/auth/cloud-platform"], **more,
    )
    credentials.refresh(google.auth.transport.requests.Request(session=session))
    return credentials.token


def azure():
    from azure.identity import ManagedIdentityCredential, OnBehalfOfCredential, WorkloadIdentityCredential

    kind = settings["with"]
    if kind == "managed_identity":
        os.environ.update(settings["environment"])
        more = {"client_id": settings["client_id"]} if settings.get("client_id") else {}
        return ManagedIdentityCredential(**more).get_token(settings["scope"]).token
    common = {"authority": settings["url"], "disable_instance_discovery": True, "connection_verify": settings["authorities"]}
    who = {"tenant_id": settings["tenant"], "client_id": settings["client_id"]}
    if kind == "workload_identity":
        credential = WorkloadIdentityCredential(token_file_path=settings["token_file"], **who, **common)
    else:
        assertion = open(settings["token_file"]).read()
        credential = OnBehalfOfCredential(
            client_assertion_func=lambda: assertion, user_assertion=settings["user_assertion"], **who, **common
        )
    return credential.get_token(settings["scope"]).token


try:
    answer = {"token": google() if settings["with"] == "google" else azure()}
except Exception as error:  # noqa: BLE001: whatever the SDK says is the answer
    answer = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(answer))
