"""A folder, pushed to a hub by huggingface_hub.

    python hub_push.py ENDPOINT FOLDER REPO
"""

import os
import sys

endpoint, folder, repo = sys.argv[1:]
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from huggingface_hub import HfApi

api = HfApi(endpoint=endpoint, token="hf_secret")
api.create_repo(repo, exist_ok=True)
api.upload_folder(repo_id=repo, folder_path=folder, commit_message="theirs")
