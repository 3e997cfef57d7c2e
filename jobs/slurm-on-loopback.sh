#!/usr/bin/env bash
# A SLURM of one node on this machine, for trying cluster files and for tests; Debian, as root, no systemd needed.
#   jobs/slurm-on-loopback.sh start|stop
set -euo pipefail
etc=/etc/slurm
end() {
  local name
  for name in "$@"; do
    pkill -x "$name" || true
    while pgrep -x "$name" > /dev/null; do sleep 0.2; done
  done
}
stop() {
  end slurmd slurmctld munged
}
start() {
  command -v slurmctld slurmd munged > /dev/null ||
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge
  install -d -o munge -g munge -m 755 /run/munge
  test -s /etc/munge/munge.key || { dd if=/dev/urandom bs=1 count=1024 of=/etc/munge/munge.key status=none; }
  chown munge:munge /etc/munge/munge.key && chmod 400 /etc/munge/munge.key
  install -d -o munge -g munge -m 700 /var/lib/munge /var/log/munge
  pgrep -x munged > /dev/null || su -s /bin/sh munge -c /usr/sbin/munged
  mkdir -p "$etc" /var/spool/slurmctld /var/spool/slurmd
  configuration > "$etc/slurm.conf.new"
  cmp -s "$etc/slurm.conf.new" "$etc/slurm.conf" || end slurmd slurmctld
  mv "$etc/slurm.conf.new" "$etc/slurm.conf"
  pgrep -x slurmctld > /dev/null || slurmctld
  pgrep -x slurmd > /dev/null || slurmd
  for _ in $(seq 30); do
    sinfo --noheader --format %t 2> /dev/null | grep -qE "idle|mix|alloc" && return
    sleep 1
  done
  echo "SLURM did not start; see /var/log/slurmctld.log and /var/log/slurmd.log." >&2
  return 1
}
# More processors than there are: jobs that an aborted test left behind must not keep the next one waiting.
configuration() {
  cat << CONF
ClusterName=loopback
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmdSpoolDir=/var/spool/slurmd
StateSaveLocation=/var/spool/slurmctld
SlurmctldLogFile=/var/log/slurmctld.log
SlurmdLogFile=/var/log/slurmd.log
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=16 RealMemory=$(free -m | awk '/^Mem/ {print $2}') State=UNKNOWN
PartitionName=cpu Nodes=$(hostname -s) Default=YES MaxTime=INFINITE State=UP
CONF
}
"${1:-start}"
