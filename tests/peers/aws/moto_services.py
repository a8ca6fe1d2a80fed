"""AWS services in one process: moto_services.py '{}'. Prints its address, and ends when its standard input closes.

Signatures are looked at once somebody posts `0` to /moto-api/reset-auth: by botocore's own signer.
"""
import json
import sys

from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
sys.stdin.read()
server.stop()
