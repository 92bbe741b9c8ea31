//! System calls of 32-bit programs: no tracepoint tells of them, and they are seen all the same, on every tier.

use super::Machine;
use super::batch::Batch;
use crate::cases::{self, Act, act};
use crate::suite::Report;

/// Rules, and how they are violated. What has a security hook is here as well as what has none.
const ACTS: [(&str, Act); 15] = [
    (
        "RF-105",
        act(
            "dup2",
            "sh -c 'nc -l -p 9132 </dev/null >/dev/null & until netstat -ltn | grep -q :9132; do :; done; \
             actor stdio compat-dup2 tcp --to 169.254.0.1:9132'",
        ),
    ),
    ("RF-117", act("ring", "actor connect compat-ring")),
    ("RF-210", act("rename", "actor write compat-rename /etc/ld.so.preload")),
    ("RF-212", act("link", "actor write compat-link /usr/bin/new-o")),
    ("RF-212", act("symlink", "actor write compat-symlink /usr/bin/new-p")),
    ("RF-309", act("fsconfig", "actor namespace compat-fsconfig /dev/vda")),
    ("RF-312", act("setns", "actor namespace compat-setns-invalid")),
    ("RF-314", act("socketcall", "actor unix compat-connect /var/run/docker.sock")),
    ("RF-317", act("chmod", "sh -c 'cp /usr/bin/tool /tmp/set-i; actor mode compat-chmod 4755 /tmp/set-i'")),
    ("RF-401", act("truncate", "sh -c 'echo >/var/log/three.log; actor clear compat-truncate /var/log/three.log'")),
    ("RF-401", act("unlink", "sh -c 'echo >/var/log/two.log; actor clear compat-unlink /var/log/two.log'")),
    ("RF-501", act("open", "actor read compat /etc/shadow")),
    ("RF-510", act("socketcall", "actor connect compat-udp-connect 169.254.169.254:80")),
    ("RF-513", act("socketcall", "actor connect compat-packet")),
    (
        "RF-905",
        act("old-mmap", "sh -c 'cp /lib/libdemo.so.1 /opt/library-e.so; actor map compat-exec /opt/library-e.so'"),
    ),
];

/// That they work, and are seen, where they are only logged.
pub fn control(machine: &Machine, report: &mut Report) {
    let mut batch = Batch::new(machine);
    for (rule, act) in ACTS {
        batch.logged(report, format!("vm/compat/{rule}/{}/log", act.name), cases::of(rule), &act);
    }
    batch.judge(report);
}

/// That they are stopped on this machine's tier.
pub fn run(machine: &Machine, report: &mut Report) {
    let mut batch = Batch::new(machine);
    for (rule, act) in ACTS {
        let name = format!("vm/{}/compat/{rule}/{}", machine.strongest, act.name);
        batch.blocked(report, name, cases::of(rule), &act);
    }
    batch.judge(report);
}
