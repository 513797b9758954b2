#!/bin/sh
# Every man page is clean to mandoc and says its exit status and examples. man_lint.sh MAN_FOLDER
set -eu
command -v mandoc >/dev/null || { echo "no mandoc: skipped"; exit 77; }
cd "$1"
pages=0
faults=0
for page in *.1 *.7; do
  pages=$((pages + 1))
  mandoc -T lint -W warning "$page" || faults=1
  for section in EXAMPLES NAME; do
    grep -q "^\.Sh $section\$" "$page" || { echo "$page: no section $section"; faults=1; }
  done
  case $page in
    *.1) grep -q '^\.Sh EXIT STATUS$' "$page" || { echo "$page: no section EXIT STATUS"; faults=1; } ;;
  esac
  mandoc -T utf8 "$page" | grep -q . || { echo "$page: renders to nothing"; faults=1; }
done
[ "$pages" -ge 10 ] || { echo "only $pages pages"; faults=1; }
exit $faults
