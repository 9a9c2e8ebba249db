#!/bin/sh
# What every script here takes for granted: settings that do not depend on the machine, and a queueing
# discipline that does not pace. A name that a kernel does not know is passed over.
put() { sysctl -q "net.ipv4.tcp_$1=$2" 2>/dev/null; }

put rmem "4096 540000 15728640"
put wmem "4096 262144 4194304"
for pair in timestamps=1 sack=1 dsack=1 window_scaling=1 ecn=0 syncookies=1 synack_retries=5 \
            moderate_rcvbuf=1 shrink_window=0 invalid_ratelimit=500 fastopen=0; do
    put "${pair%%=*}" "${pair#*=}"
done
tc qdisc add dev tun0 root pfifo
