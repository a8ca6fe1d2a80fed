"""Google and Microsoft for one test. Start: clouds.py '{"certificate": …, "key": …, "authorities": …}'.

The first line of output says where everything is; a `POST` to the control port changes attributes. Ends when its
standard input closes.
"""
import json
import sys

from common import Issuers, Refused, serve
from entra import Entra
from google_cloud import Google

settings = json.loads(sys.argv[1])
certificate = (settings["certificate"], settings["key"])
issuers = Issuers(settings["authorities"])
google, entra = Google(issuers), Entra(issuers)


def control(request):
    body = json.loads(request.body) if request.body else {}
    if request.path == "/issuer":
        issuers.reach(body["issuer"], body["address"])
        return 200, {}, {}
    target = {"/google": google, "/entra": entra}.get(request.path)
    if target is None:
        raise Refused(404, {})
    for name, value in body.items():
        if not hasattr(target, name):
            raise Refused(400, {"unknown": name})
        setattr(target, name, value)
    return 200, {}, {"issued": target.issued, "refused": target.refused, "asked": getattr(target, "asked", 0)}


google_port, entra_port = serve(google.answer, certificate), serve(entra.answer, certificate)
entra.base = f"https://127.0.0.1:{entra_port}"
print(json.dumps({
    "google": f"https://127.0.0.1:{google_port}",
    "google_metadata": f"http://127.0.0.1:{serve(google.metadata)}",
    "entra": entra.base,
    "managed_identity": f"http://127.0.0.1:{serve(entra.managed_identity)}",
    "control": f"127.0.0.1:{serve(control)}",
}), flush=True)
sys.stdin.read()
