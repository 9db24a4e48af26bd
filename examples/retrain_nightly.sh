#!/usr/bin/env bash
# Retrain every night; a running `graphmeta serve out/shop` changes to the new model by itself. In crontab:
#
#     30 2 * * *  cd /srv/shop && ./retrain_nightly.sh >> retrain.log 2>&1
#
# Two trainings never write at the same time: the second ends with an error that names the first one's process.
set -euo pipefail

LOG=${LOG:-clicks.csv} OUT=${OUT:-out/shop}

graphmeta fit "$LOG" --session visit --item sku --time at --system sr_gnn --out "$OUT"

# A model that is behind a baseline is not kept: the version before it becomes the current one again.
if python3 -c 'import json, sys; sys.exit(not json.load(open(sys.argv[1])).get("behind"))' "$OUT/metrics.json"; then
    graphmeta rollback "$OUT"
fi
