"""An S3 server on this machine: moto's, with a bucket of the files in a folder.

Usage: s3_server.py FOLDER

Prints the server's address, then runs until its standard input ends. Its lines are commands, each answered:

- "PUT KEY" uploads the file again.
- "USER" prints the id and the secret of a user who may read. From then on the server checks signatures.
"""

import json
import os
import sys
from pathlib import Path

for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]
os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1")

import boto3
from moto import settings
from moto.server import ThreadedMotoServer

BUCKET = "some-bucket"


def user(url):
    """A key of a new user who may read all objects. Then the server's checks begin."""
    client = boto3.client("iam", endpoint_url=url)
    client.create_user(UserName="reader")
    allowed = [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}]
    policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    client.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
    key = client.create_access_key(UserName="reader")["AccessKey"]
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    return key["AccessKeyId"], key["SecretAccessKey"]


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
        if line.strip() == "USER":
            print(*user(f"http://{host}:{port}"), flush=True)
            continue
        key = line.strip().removeprefix("PUT ")
        client.upload_file(str(folder / key), BUCKET, key)
        print("done", flush=True)
    server.stop()


if __name__ == "__main__":
    main()
