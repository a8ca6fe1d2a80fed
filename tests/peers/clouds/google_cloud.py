"""Stands in for Google's Security Token Service, IAM Credentials and metadata server.

It takes what google-auth sends and nothing else, verifies as the documentation says that Google verifies, and refuses
in Google's words. https://cloud.google.com/iam/docs/reference/sts/rest, .../credentials/rest
"""
import re
import time
import urllib.parse

from common import BadToken, Issuers, OwnKey, Refused, once, random_text

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
SCOPES = "https://www.googleapis.com/auth/"


def oauth(status, error, description):
    return Refused(status, {"error": error, "error_description": description})


def rpc(code, status, message):
    return Refused(code, {"error": {"code": code, "message": message, "status": status}})


class Google:
    def __init__(self, issuers: Issuers):
        self.issuers, self.own = issuers, OwnKey()
        # Provider → {"audiences": [...], "subjects": [...] or None (the attribute condition)}
        self.providers = {}
        # Service account → subjects and service accounts that may create its tokens.
        self.accounts = {}
        self.federated = {}
        self.issued, self.refused = [], 0
        self.broken = 0

    def answer(self, request):
        try:
            if self.broken:
                self.broken -= 1
                raise Refused(503, {"error": "temporarily_unavailable"})
            if request.method == "POST" and request.path == "/v1/token":
                return 200, {}, self.exchange(request)
            found = re.fullmatch(r"/v1/projects/-/serviceAccounts/([^/:]+):(generateAccessToken|generateIdToken)", request.path)
            if request.method == "POST" and found:
                return 200, {}, self.impersonate(request, urllib.parse.unquote(found[1]), found[2])
            raise rpc(404, "NOT_FOUND", "Requested entity was not found.")
        except Refused:
            self.refused += 1
            raise

    def exchange(self, request):
        if "authorization" in request.headers:
            raise oauth(400, "invalid_request", "Client authentication is not supported here")
        if request.media_type() != "application/x-www-form-urlencoded":
            raise oauth(400, "invalid_request", "Request body is not a form")
        form = request.form()
        names = {"grant_type", "audience", "scope", "requested_token_type", "subject_token", "subject_token_type"}
        for name in names - form.keys():
            raise oauth(400, "invalid_request", f"Missing parameter {name}")
        for name in form:
            if name not in names or not form[name]:
                raise oauth(400, "invalid_request", f"Invalid parameter {name}")
        if form["grant_type"] != GRANT:
            raise oauth(400, "unsupported_grant_type", "Unsupported grant type")
        if form["requested_token_type"] != ACCESS or form["subject_token_type"] != JWT:
            raise oauth(400, "invalid_request", "Invalid token type")
        scopes = form["scope"].split(" ")
        if not all(scope.startswith(SCOPES) for scope in scopes):
            raise oauth(400, "invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        provider = self.providers.get(form["audience"])
        if provider is None:
            raise oauth(400, "invalid_target", 'The target service indicated by the "audience" parameters is invalid.')
        allowed = provider.get("audiences") or ["https:" + form["audience"], form["audience"]]
        try:
            claims = self.issuers.verified(form["subject_token"], allowed, ("RS256", "ES256"))
        except BadToken as bad:
            said = {
                "audience": f"The audience in ID Token [{bad.said}] does not match the expected audience.",
                "issuer": "The issuer in ID Token does not match the expected ones.",
                "signature": f"Error connecting to the given credential's issuer, or invalid signature: {bad.said}",
                "time": f"ID Token is stale to sign-in: {bad.said}",
                "form": "Unable to parse the ID Token.",
            }[bad.why]
            raise oauth(400, "invalid_grant", said) from bad
        if len(claims["sub"].encode()) > 127:
            raise oauth(400, "invalid_request", "The size of mapped attribute google.subject exceeds the 127 bytes limit.")
        if provider.get("subjects") is not None and claims["sub"] not in provider["subjects"]:
            raise oauth(401, "unauthorized_client", "The given credential is rejected by the attribute condition.")
        token = random_text("ya29.d.")
        self.federated[token] = {"subject": claims["sub"], "scopes": scopes}
        self.issued.append({"kind": "federated", "token": token, "subject": claims["sub"], "scopes": scopes, "claims": claims})
        return {"access_token": token, "issued_token_type": ACCESS, "token_type": "Bearer", "expires_in": 3599}

    def impersonate(self, request, email, method):
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        who = self.federated.get(token)
        if scheme != "Bearer" or who is None:
            raise rpc(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if not {SCOPES + "iam", SCOPES + "cloud-platform"} & set(who["scopes"]):
            raise rpc(403, "PERMISSION_DENIED", "Request had insufficient authentication scopes.")
        if request.media_type() != "application/json":
            raise rpc(400, "INVALID_ARGUMENT", "The request is not JSON.")
        body = __import__("json").loads(request.body)
        wanted = {"delegates", "scope", "lifetime"} if method == "generateAccessToken" else {"delegates", "audience", "includeEmail"}
        for name in body.keys() - wanted:
            raise rpc(400, "INVALID_ARGUMENT", f'Invalid JSON payload received. Unknown name "{name}"')
        chain = [who["subject"]]
        for delegate in body.get("delegates") or []:
            found = re.fullmatch(r"projects/-/serviceAccounts/([^/]+)", delegate)
            if not found:
                raise rpc(400, "INVALID_ARGUMENT", "Invalid delegate")
            chain.append(found[1])
        for creator, account in zip(chain, chain[1:] + [email]):
            if account not in self.accounts:
                raise rpc(404, "NOT_FOUND", f"Unknown service account: {account}")
            if creator not in self.accounts[account]:
                raise rpc(403, "PERMISSION_DENIED", "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).")
        facts = {"email": email, "subject": who["subject"], "delegates": chain[1:]}
        if method == "generateIdToken":
            if not body.get("audience"):
                raise rpc(400, "INVALID_ARGUMENT", "audience is required")
            claims = {"iss": "https://accounts.google.com", "aud": body["audience"], "azp": "1137", "sub": "1137"}
            if body.get("includeEmail"):
                claims.update(email=email, email_verified=True)
            token = self.own.sign(claims)
            self.issued.append({"kind": "id", "token": token, "audience": body["audience"], **facts})
            return {"token": token}
        if not body.get("scope") or not all(scope.startswith(SCOPES) for scope in body["scope"]):
            raise rpc(400, "INVALID_ARGUMENT", "scope is required")
        lifetime = re.fullmatch(r"(\d+)s", body.get("lifetime") or "3600s")
        if not lifetime or not 0 < int(lifetime[1]) <= 3600:
            raise rpc(400, "INVALID_ARGUMENT", "lifetime is out of range")
        token, seconds = random_text("ya29.c."), int(lifetime[1])
        self.issued.append({"kind": "access", "token": token, "scopes": body["scope"], "seconds": seconds, **facts})
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        return {"accessToken": token, "expireTime": ends}

    def metadata(self, request):
        flavored = {"metadata-flavor": "Google"}
        if request.headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in request.headers:
            raise Refused(403, b"Missing Metadata-Flavor:Google header.", flavored)
        query = once(request.query)
        base = "/computeMetadata/v1/instance/service-accounts/default/"
        if request.path == base + "token" and query.keys() <= {"scopes"}:
            token = random_text("ya29.m.")
            self.issued.append({"kind": "metadata", "token": token, "scopes": (query.get("scopes") or "").split(",")})
            return 200, flavored, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}
        if request.path == base + "identity" and query.get("audience") and query.get("format") in ("full", "standard", None):
            token = self.own.sign({"iss": "https://accounts.google.com", "aud": query["audience"], "azp": "1137", "sub": "1137"})
            self.issued.append({"kind": "metadata_id", "token": token, "audience": query["audience"]})
            return 200, {**flavored, "content-type": "text/html"}, token.encode()
        raise Refused(404, b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>", flavored)
