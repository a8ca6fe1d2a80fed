"""The SPIFFE Workload API of an agent, on the messages and the service of PyPI's `spiffe`: agent.py SOCKET.

Each line of standard input is what the agent has from then on for every workload, and is sent to whoever follows it:
`[{"spiffe_id": …, "svid": …, "key": …, "bundle": …}]`, each DER in base64, or `[]` where no identity is issued. Prints a
line when it serves, and one for each line that it took. Ends when its standard input closes.

As the Workload API specification has it: a call without the metadata `workload.spiffe.io: true` is INVALID_ARGUMENT, and a
workload without an identity gets PERMISSION_DENIED, whether it asks anew or is following.
"""
import base64
import json
import sys
import threading
from concurrent import futures

import grpc
from spiffe._proto import workload_pb2 as messages
from spiffe._proto import workload_pb2_grpc as service

changed = threading.Condition()
state = {"revision": 0, "identities": []}


def response(identities):
    der = base64.b64decode
    return messages.X509SVIDResponse(svids=[
        messages.X509SVID(spiffe_id=one["spiffe_id"], x509_svid=der(one["svid"]), x509_svid_key=der(one["key"]),
                          bundle=der(one["bundle"]))
        for one in identities
    ])


class Agent(service.SpiffeWorkloadAPIServicer):
    def FetchX509SVID(self, request, context):
        if dict(context.invocation_metadata()).get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        sent = None
        while context.is_active():
            with changed:
                changed.wait_for(lambda: state["revision"] != sent or not context.is_active(), timeout=0.2)
                if state["revision"] == sent:
                    continue
                sent, identities = state["revision"], state["identities"]
            if not identities:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
            yield response(identities)


server = grpc.server(futures.ThreadPoolExecutor(16))
service.add_SpiffeWorkloadAPIServicer_to_server(Agent(), server)
server.add_insecure_port(f"unix://{sys.argv[1]}")
server.start()
print("ready", flush=True)
for line in sys.stdin:
    with changed:
        state["identities"] = json.loads(line)
        state["revision"] += 1
        changed.notify_all()
    print("taken", flush=True)
server.stop(None)
