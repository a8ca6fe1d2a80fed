"""Stands in for the token endpoint of Microsoft Entra ID and for Azure's managed identity endpoints.

It takes what azure-identity sends and nothing else, verifies as the documentation says that Entra verifies, and refuses
in Entra's words. https://learn.microsoft.com/entra/identity-platform/reference-error-codes
"""
import json
import re
import time

from common import BadToken, Issuers, OwnKey, Refused, once, random_text

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ON_BEHALF = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "api://AzureADTokenExchange"
CLAIMS = json.dumps({"access_token": {"acrs": {"essential": True, "value": "c1"}}})


def refused(status, error, code, said, **more):
    return Refused(status, {
        "error": error, "error_codes": [code], "timestamp": "2026-01-01 00:00:00Z",
        "error_description": f"AADSTS{code}: {said} Trace ID: 0000aaaa-11bb-22cc-33dd-444444eeeeee "
                             "Correlation ID: aaaa0000-bb11-2222-33cc-444444dddddd Timestamp: 2026-01-01 00:00:00Z",
        "trace_id": "0000aaaa-11bb-22cc-33dd-444444eeeeee", "correlation_id": "aaaa0000-bb11-2222-33cc-444444dddddd",
        "error_uri": f"https://login.microsoftonline.com/error?code={code}", **more,
    })


class Entra:
    def __init__(self, issuers: Issuers):
        self.issuers, self.own, self.base = issuers, OwnKey(), ""
        self.tenant = ""
        # Application → {"federated": [{"issuer", "subject"}], "identifiers": [audiences of its users' tokens]}
        self.applications = {}
        self.identity_header, self.user_assigned = "", []
        self.not_yet, self.updating, self.wants_second_factor = 0, 0, False
        self.issued, self.asked, self.refused = [], 0, []

    def answer(self, request):
        try:
            return self.answered(request)
        except Refused as refusal:
            self.refused.append(refusal.body)
            raise

    def answered(self, request):
        found = re.fullmatch(r"/([^/]+)/(v2.0/.well-known/openid-configuration|oauth2/v2.0/token)", request.path)
        if not found:
            raise Refused(404, {})
        if found[1] != self.tenant:
            raise refused(400, "invalid_request", 90002, f"Tenant '{found[1]}' not found.")
        if request.method == "GET":
            base = f"{self.base}/{self.tenant}"
            return 200, {}, {
                "token_endpoint": f"{base}/oauth2/v2.0/token", "issuer": f"{base}/v2.0", "tenant_region_scope": "EU",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            }
        return 200, {}, self.token(request)

    def token(self, request):
        self.asked += 1
        if request.media_type() != "application/x-www-form-urlencoded":
            raise refused(400, "invalid_request", 900144, "The request body must be a form.")
        form = request.form()
        on_behalf = form.get("grant_type") == ON_BEHALF
        names = {"client_id", "client_assertion_type", "client_assertion", "scope", "grant_type"}
        names |= {"assertion", "requested_token_use"} if on_behalf else set()
        for name in names - form.keys():
            raise refused(400, "invalid_request", 900144, f"The request body must contain the following parameter: '{name}'.")
        # What the SDKs send besides without effect here.
        for name in form.keys() - names - {"client_info"}:
            raise refused(400, "invalid_request", 90014, f"Unexpected parameter '{name}'.")
        for name, value in form.items():
            if not value:
                raise refused(400, "invalid_request", 900144, f"Empty or repeated parameter '{name}'.")
        application = self.applications.get(form["client_id"])
        if application is None:
            raise refused(400, "unauthorized_client", 700016, f"Application with identifier '{form['client_id']}' was not found in the directory.")
        self.client(form, application)
        scopes = [scope for scope in form["scope"].split(" ") if scope not in ("openid", "profile", "offline_access")]
        if not on_behalf and (form["grant_type"] != "client_credentials" or len(scopes) != 1 or not scopes[0].endswith("/.default")):
            raise refused(400, "invalid_scope", 1002012, f"The provided value for scope {form['scope']} is not valid.")
        resource = scopes[0].rsplit("/", 1)[0]
        claims = {"iss": f"https://sts.windows.net/{self.tenant}/", "aud": resource, "tid": self.tenant, "appid": form["client_id"], "ver": "1.0", "uti": random_text("u-")}
        if on_behalf:
            if form["requested_token_use"] != "on_behalf_of":
                raise refused(400, "invalid_request", 900144, "requested_token_use must be on_behalf_of.")
            user = self.user(form["assertion"], application)
            claims.update(sub=user["sub"], oid=user["sub"], scp="user_impersonation")
        else:
            claims.update(sub="app-object", oid="app-object", idtyp="app")
        token = self.own.sign(claims)
        self.issued.append({"kind": form["grant_type"], "token": token, "scope": form["scope"], "sub": claims["sub"], "client_id": form["client_id"], "uti": claims["uti"]})
        return {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "refresh_in": 1800, "access_token": token}

    def client(self, form, application):
        if form["client_assertion_type"] != ASSERTION:
            raise refused(401, "invalid_client", 7000216, "'client_assertion', 'client_secret' or 'request' is required.")
        if self.not_yet:
            self.not_yet -= 1
            raise refused(400, "invalid_request", 70021, "No matching federated identity record found for presented assertion.")
        try:
            claims = self.issuers.verified(form["client_assertion"], [EXCHANGE])
        except BadToken as bad:
            code, said = {
                "issuer": (700211, f"No matching federated identity record found for presented assertion issuer: {bad.said}"),
                "audience": (700212, f"No matching federated identity record found for presented assertion audience '{bad.said}'."),
                "time": (700024, f"Client assertion is not within its valid time range: {bad.said}"),
                "signature": (700027, f"Client assertion failed signature validation: {bad.said}"),
                "form": (50027, "JWT token is invalid or malformed."),
            }[bad.why]
            raise refused(401, "invalid_client", code, said) from bad
        records = application["federated"]
        if not any(record["issuer"] == claims["iss"] for record in records):
            raise refused(401, "invalid_client", 700211, f"No matching federated identity record found for presented assertion issuer '{claims['iss']}'.")
        if {"issuer": claims["iss"], "subject": claims["sub"]} not in records:
            raise refused(401, "invalid_client", 700213, f"No matching federated identity record found for presented assertion subject '{claims['sub']}'.")

    def user(self, token, application):
        try:
            claims = self.issuers.verified(token, application["identifiers"], ("RS256", "ES256"))
        except BadToken as bad:
            raise refused(400, "invalid_grant", 50013, f"Assertion failed validation: {bad.why}.") from bad
        if "scp" not in claims:
            raise refused(400, "invalid_grant", 7000114, "Application is not allowed to make application on-behalf-of calls.")
        if self.wants_second_factor and "c1" not in claims.get("acrs", []):
            raise refused(400, "interaction_required", 50076, "You must use multi-factor authentication to access it.", suberror="basic_action", claims=CLAIMS)
        return claims

    def managed_identity(self, request):
        query = once(request.query)
        if request.path == "/metadata/identity/oauth2/token":
            if request.headers.get("metadata") != "true":
                raise Refused(400, {"error": "bad_request_102", "error_description": "Required metadata header not specified"})
            if "x-forwarded-for" in request.headers:
                raise Refused(403, {"error": "forbidden"})
            version = "2018-02-01"
        elif request.path == "/msi/token":
            if request.headers.get("x-identity-header") != self.identity_header:
                raise Refused(401, {"statusCode": 401, "message": "Unauthorized"})
            version = "2019-08-01"
        else:
            raise Refused(404, {})
        if self.updating:
            self.updating -= 1
            raise Refused(410, {"error": "gone"})
        if query.get("api-version") != version or query.keys() - {"api-version", "resource", "client_id"}:
            raise Refused(400, {"error": "invalid_request", "error_description": "Bad query"})
        if not query.get("resource") or query["resource"].endswith(".default"):
            raise Refused(400, {"error": "invalid_resource", "error_description": "AADSTS500011: resource"})
        if "client_id" in query and query["client_id"] not in self.user_assigned:
            raise Refused(400, {"error": "invalid_request", "error_description": "Identity not found"})
        claims = {"iss": f"https://sts.windows.net/{self.tenant}/", "aud": query["resource"], "sub": "managed", "idtyp": "app"}
        token = self.own.sign({**claims, "exp": int(time.time()) + 86399})
        self.issued.append({"kind": "managed_identity", "token": token, "resource": query["resource"], "client_id": query.get("client_id")})
        answer = {"access_token": token, "expires_on": str(int(time.time()) + 86399), "resource": query["resource"], "token_type": "Bearer", "client_id": query.get("client_id", "system")}
        if version == "2018-02-01":
            answer["expires_in"] = "86399"
        return 200, {}, answer
