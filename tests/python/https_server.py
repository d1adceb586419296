"""Scores responses over https, for tests/it/interop/connections.rs.

    python tests/python/https_server.py FOLDER

FOLDER has server.pem and server.key. Prints the port. A response's score is its length.
"""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        responses = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["responses"]
        body = json.dumps({"scores": [len(response) for response in responses]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/server.pem", f"{folder}/server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_port, flush=True)
    server.serve_forever()


main(sys.argv[1])
