"""What the stand-ins for the clouds share: servers, answers, forms, and how a JWT of somebody else's is verified."""
import base64
import http.client
import http.server
import json
import ssl
import threading
import time
import urllib.parse

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status, body, headers=None):
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


class Request:
    """One request, read whole."""

    def __init__(self, handler):
        url = urllib.parse.urlsplit(handler.path)
        self.method, self.path, self.target = handler.command, url.path, handler.path
        self.query = urllib.parse.parse_qsl(url.query, keep_blank_values=True)
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.body = handler.rfile.read(int(self.headers.get("content-length") or 0))

    def media_type(self):
        return self.headers.get("content-type", "").split(";")[0].strip().lower()

    def form(self):
        """The form's parameters; one that comes twice is None."""
        return once(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True))


def once(pairs):
    found = {}
    for name, value in pairs:
        found[name] = None if name in found else value
    return found


def serve(answer, certificate=None):
    """Serves `answer(Request) -> (status, headers, body)` on a free loopback port, and returns the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            try:
                status, headers, body = answer(Request(self))
            except Refused as refused:
                status, headers, body = refused.status, refused.headers, refused.body
            if not isinstance(body, bytes):
                headers, body = {"content-type": "application/json", **headers}, json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class BadToken(Exception):
    """Why a JWT does not hold: `signature`, `issuer`, `audience`, `time` or `form`."""

    def __init__(self, why, said):
        super().__init__(said)
        self.why, self.said = why, said


class Issuers:
    """OIDC issuers, read as a cloud reads them: discovery below the issuer's URL, keys where that says, https."""

    def __init__(self, authorities):
        self.context = ssl.create_default_context(cafile=authorities)
        self.addresses = {}

    def reach(self, issuer, address):
        """From now on what is at `issuer` is asked at this address, as if a name server said so."""
        self.addresses[issuer] = address

    def document(self, issuer, url):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "https" or parts.netloc != urllib.parse.urlsplit(issuer).netloc:
            raise BadToken("signature", f"keys at {url} are not the issuer's")
        host, port = self.addresses[issuer].rsplit(":", 1)
        plain = http.client.HTTPSConnection(parts.hostname, int(port), context=self.context, timeout=10)
        plain._create_connection = lambda _address, *rest: __import__("socket").create_connection((host, int(port)), *rest)
        plain.request("GET", parts.path, headers={"host": parts.netloc})
        answer = plain.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise BadToken("signature", f"{url} answered {answer.status}")
        return json.loads(body)

    def verified(self, token, audiences, algorithms=("RS256",)):
        """The claims of a token for one of `audiences`: signature first, then issuer, audience and times."""
        try:
            header = jwt.get_unverified_header(token)
            unverified = jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError as error:
            raise BadToken("form", "it is no JWT") from error
        issuer = unverified.get("iss")
        if issuer not in self.addresses:
            raise BadToken("issuer", f"{issuer} is not trusted")
        if header.get("alg") not in algorithms:
            raise BadToken("signature", f"algorithm {header.get('alg')}")
        discovery = self.document(issuer, issuer + "/.well-known/openid-configuration")
        if discovery["issuer"] != issuer:
            raise BadToken("issuer", "discovery names another issuer")
        keys = jwt.PyJWKSet.from_dict(self.document(issuer, discovery["jwks_uri"])).keys
        key = next((key for key in keys if key.key_id == header.get("kid")), None)
        if key is None:
            raise BadToken("signature", "its key is not published")
        try:
            claims = jwt.decode(
                token, key.key, algorithms=list(algorithms), leeway=0,
                options={"verify_aud": False, "require": ["iss", "sub", "aud", "iat", "exp"]},
            )
        except jwt.InvalidSignatureError as error:
            raise BadToken("signature", "its signature does not verify") from error
        except jwt.PyJWTError as error:
            raise BadToken("time", str(error)) from error
        if claims["exp"] - claims["iat"] > 24 * 3600:
            raise BadToken("time", "it lives longer than a day")
        if not isinstance(claims["aud"], str) or claims["aud"] not in audiences:
            raise BadToken("audience", str(claims["aud"]))
        return claims


class OwnKey:
    """The key that a cloud signs its own tokens with."""

    def __init__(self):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def sign(self, claims):
        now = int(time.time())
        return jwt.encode({"iat": now, "nbf": now, "exp": now + 3599, **claims}, self.key, "RS256", {"kid": "own"})


def random_text(prefix):
    return prefix + base64.urlsafe_b64encode(__import__("os").urandom(24)).decode().rstrip("=")
