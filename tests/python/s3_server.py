"""An S3 server on this machine: moto's, with a bucket of the files in a folder.

Usage: s3_server.py FOLDER

Prints the server's address, then runs until its standard input ends. Each line of the standard input
"PUT KEY" uploads the file again.
"""

import os
import sys
from pathlib import Path

for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]
os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1")

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "some-bucket"


def main():
    folder = Path(sys.argv[1])
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket=BUCKET)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        client.upload_file(str(path), BUCKET, path.relative_to(folder).as_posix())
    print(f"http://{host}:{port}", flush=True)
    for line in sys.stdin:
        key = line.strip().removeprefix("PUT ")
        client.upload_file(str(folder / key), BUCKET, key)
        print("done", flush=True)
    server.stop()


if __name__ == "__main__":
    main()
