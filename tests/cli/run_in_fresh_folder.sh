#!/bin/sh
# run_in_fresh_folder.sh SCRIPT: in an empty folder that goes away.
set -eu
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
unset COLUMNS NO_COLOR
cd "$folder"
sh -eu "$1"
