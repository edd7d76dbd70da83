# Runs crun's own tests, from the folder /srv/suite, against the runtime $1. Results are lines of TAP in
# /srv/results.$1, each after the name of its file; what the tests say beside that is in /srv/log.$1.
set -eu
runtime=$1
work=/tmp/$runtime
mkdir "$work"
mount -t tmpfs none "$work"
cp -r /srv/suite "$work/tests"
cd "$work"
case $runtime in
oci) export OCI_RUNTIME=/srv/oci ;;
*) export OCI_RUNTIME=/usr/bin/$runtime ;;
esac
export INIT="$work/tests/init"
# Two tests mount it.
touch /etc/localtime
# One test looks for a process id of five digits.
echo 20000 >/proc/sys/kernel/ns_last_pid

# `test_start.py` uses `time` and does not import it.
cat >run.py <<'END'
import builtins, runpy, sys, time
builtins.time = time
sys.path.insert(0, "tests")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
END
for path in tests/test_*.py; do
    file=$(basename "$path" .py)
    case $file in
    # These skip themselves unless they have a terminal.
    test_tty) set -- script --quiet --command "python3 run.py $path" /dev/null ;;
    *) set -- python3 run.py "$path" ;;
    esac
    echo "=== $file" >>"/srv/log.$runtime"
    timeout 120 "$@" </dev/null >output 2>>"/srv/log.$runtime" || echo "=== it failed: $?" >>"/srv/log.$runtime"
    tr -d '\r' <output | sed "s/^/$file: /" >>"/srv/partial.$runtime"
done
mv "/srv/partial.$runtime" "/srv/results.$runtime"
