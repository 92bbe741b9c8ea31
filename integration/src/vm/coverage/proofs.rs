//! Each operation of each rule, done so that anybody can see whether it took effect.

/// One operation of one rule.
#[derive(Clone, Debug)]
pub struct Proof {
    /// `RF-nnn`.
    pub rule: &'static str,
    /// The operation, in the words of `ringfence_policy::Deed`.
    pub deed: &'static str,
    /// What is done before, by nobody that is governed: a shell's command, in the container's root.
    pub before: String,
    /// What is started in the container.
    pub command: String,
    /// How it is seen.
    pub effect: Effect,
    /// With a controlling terminal.
    pub terminal: bool,
    /// Why the effect may be missing although it is said to be there.
    pub conservative: Option<&'static str>,
}

/// How it is seen that an operation took effect.
#[derive(Clone, Debug)]
pub enum Effect {
    /// What was started says this.
    Said(&'static str),
    /// This test holds afterwards, and not before: a shell's, in the container's root, by nobody that is governed.
    Left(String),
}

/// Operations of rules that are not tried, and why.
pub const NOT_TRIED: [(&str, &str, &str); 1] =
    [("RF-409", "ptrace (write)", "it comes after an attach, which is a violation itself")];

/// A connected socket on a standard stream needs somebody who listens.
const LISTENER: &str = "nc -l -p 9100 </dev/null >/dev/null & until netstat -ltn | grep -q :9100; do :; done";

/// All of them.
pub fn all() -> Vec<Proof> {
    [execution(), files(), escape(), network()].concat()
}

/// An open through `io_uring`.
pub fn by_ring() -> Proof {
    said("RF-501", "open", "actor read uring /etc/shadow", "bytes of /etc/shadow")
}

/// A connect by sendto(2), past the hook of connect(2).
pub fn by_fast_open() -> Proof {
    reached("actor connect tcp-fast-open")
}

/// TCP to the cloud's metadata service. Nobody listens there.
fn reached(by: &str) -> Proof {
    let refused =
        format!("{by} 169.254.169.254:80; awk \"/^Tcp: [0-9]/ {{print \\\"refused:\\\", \\$15}}\" /proc/net/snmp");
    Proof {
        conservative: Some("the packet that begins it is dropped"),
        ..said("RF-510", "connect", &shell(&refused), "refused: 1")
    }
}

fn said(rule: &'static str, deed: &'static str, command: &str, what: &'static str) -> Proof {
    Proof {
        rule,
        deed,
        before: String::new(),
        command: command.to_owned(),
        effect: Effect::Said(what),
        terminal: false,
        conservative: None,
    }
}

fn left(rule: &'static str, deed: &'static str, command: &str, test: &str) -> Proof {
    Proof { effect: Effect::Left(test.to_owned()), ..said(rule, deed, command, "") }
}

fn after(before: &str, proof: Proof) -> Proof {
    Proof { before: before.to_owned(), ..proof }
}

/// In a shell, which goes on when what it has started is killed.
fn shell(script: &str) -> String {
    format!("sh -c '{script}'")
}

fn execution() -> Vec<Proof> {
    let ran = |rule, deed, command: &str| left(rule, deed, command, "test -e /tmp/ran");
    let prepared = |before: &str, rule, command: &str| after(before, ran(rule, "exec", command));
    // The exempt server puts the connection on the streams; what it starts is no shell, what that becomes is one.
    let server = "actor exec plain --arg0 nc /usr/sbin/xinetd 169.254.0.1 9100 -e /usr/bin/actor exec plain /bin/sh";
    vec![
        Proof { terminal: true, ..ran("RF-101", "exec", &shell("echo >/tmp/ran")) },
        prepared(
            "mkdir -p /usr/sbin; cp /bin/busybox /usr/sbin/xinetd",
            "RF-105",
            &shell(&format!("{LISTENER}; {server} -c \"echo >/tmp/ran\"")),
        ),
        said(
            "RF-105",
            "stdio",
            &shell(&format!("{LISTENER}; actor stdio dup2 tcp --to 169.254.0.1:9100")),
            "redirected",
        ),
        ran("RF-107", "exec", &shell(&format!("{LISTENER}; nc 169.254.0.1 9100 -e /bin/touch /tmp/ran"))),
        ran("RF-108", "exec", &shell("cp /usr/bin/actor /dev/shm/new; /dev/shm/new write create /tmp/ran")),
        ran(
            "RF-108",
            "script",
            &shell("printf \"#!/bin/sh\\necho >/tmp/ran\" >/dev/shm/new; chmod 755 /dev/shm/new; /dev/shm/new"),
        ),
        ran("RF-108", "open", &shell("echo \"echo >/tmp/ran\" >/dev/shm/new; chmod 755 /dev/shm/new; sh /dev/shm/new")),
        ran("RF-115", "exec", "actor exec memfd /usr/bin/actor write create /tmp/ran"),
        said("RF-117", "ring", "actor read uring /etc/hostname", "bytes of /etc/hostname"),
        ran("RF-210", "exec", "env LD_PRELOAD=/tmp/hook.so touch /tmp/ran"),
        ran("RF-801", "exec", "/usr/bin/xmrig write create /tmp/ran"),
        after(
            "printf \"#!/bin/sh\\necho >/tmp/ran\" >/opt/xmrig.sh; chmod 755 /opt/xmrig.sh",
            ran("RF-801", "script", &shell("/opt/xmrig.sh; true")),
        ),
        ran("RF-802", "exec", "actor write create /tmp/ran --content stratum+tcp://pool.example:3333"),
        ran("RF-901", "exec", &shell("cp /usr/bin/actor /tmp/new; /tmp/new write create /tmp/ran")),
        ran("RF-901", "open", &shell("echo \"echo >/tmp/ran\" >/opt/new; chmod 755 /opt/new; sh /opt/new")),
        said(
            "RF-905",
            "mmap",
            &shell("cp /lib/libdemo.so.1 /opt/new.so; actor map exec /opt/new.so"),
            "mapped /opt/new.so",
        ),
    ]
    .into_iter()
    .map(|proof| Proof { before: format!("rm -f /tmp/ran; {}", proof.before), ..proof })
    .collect()
}

fn files() -> Vec<Proof> {
    let mut proofs: Vec<Proof> = [
        ("RF-210", "/etc/ld.so.preload"),
        ("RF-211", "/lib/libc.so.9"),
        ("RF-212", "/usr/bin/proven"),
        ("RF-305", "/opt/release_agent"),
    ]
    .into_iter()
    .flat_map(|(rule, path)| written(rule, path))
    .collect();
    let text = "echo text >/var/log/syslog";
    let is_empty = "test -e /var/log/syslog && ! test -s /var/log/syslog";
    proofs.extend([
        after(
            "cp /usr/bin/tool /tmp/given",
            left("RF-317", "chmod", "actor mode chmod 4755 /tmp/given", "test -u /tmp/given"),
        ),
        left("RF-317", "open (create)", "actor write create-new --mode 4755 /tmp/made", "test -u /tmp/made"),
        after(text, left("RF-401", "open (empty)", "actor clear open /var/log/syslog", is_empty)),
        after(text, left("RF-401", "truncate", "actor clear truncate /var/log/syslog", is_empty)),
        after(text, left("RF-401", "unlink", "actor clear unlink /var/log/syslog", "! test -e /var/log/syslog")),
        said("RF-501", "open", "cat /etc/shadow", "root:"),
        // Touched before: else overlayfs copies the file up to link it, and gives up when the process is to be killed.
        after("touch /etc/shadow", left("RF-501", "link_from", "ln /etc/shadow /tmp/linked", "test -e /tmp/linked")),
        after(
            "echo root:x:0:0 >/etc/gshadow",
            left("RF-501", "rename_from", "mv /etc/gshadow /tmp/renamed", "test -e /tmp/renamed"),
        ),
        said("RF-508", "open", "cat /run/secrets/kubernetes.io/serviceaccount/token", "secret"),
        after("echo >/tmp/mode", left("RF-902", "chmod", "actor mode chmod 755 /tmp/mode", "test -x /tmp/mode")),
        left("RF-903", "open (create)", "actor write create-new --mode 755 /tmp/program", "test -x /tmp/program"),
        left("RF-906", "open (write)", "actor write append /usr/bin/tool-both", "grep -q actor /usr/bin/tool-both"),
        left("RF-906", "open (empty)", "actor clear open /usr/bin/tool-dirfd", "! test -s /usr/bin/tool-dirfd"),
    ]);
    proofs
}

/// A file that nobody may write, make or replace.
fn written(rule: &'static str, path: &str) -> [Proof; 6] {
    let (text, nothing) = (format!("echo text >{path}"), format!("rm -f {path}"));
    let by = |how: &str| format!("actor write {how} {path}");
    let (is_there, is_link) = (format!("test -e {path}"), format!("test -L {path}"));
    [
        after(&text, left(rule, "open (write)", &by("append"), &format!("grep -q actor {path}"))),
        after(&text, left(rule, "open (empty)", &format!("actor clear open {path}"), &format!("! test -s {path}"))),
        after(&nothing, left(rule, "open (create)", &by("create-new"), &is_there)),
        after(&nothing, left(rule, "rename_to", &by("rename"), &is_there)),
        after(&nothing, left(rule, "link_to", &by("link"), &is_there)),
        after(&nothing, left(rule, "symlink", &by("symlink"), &is_link)),
    ]
}

fn escape() -> Vec<Proof> {
    let pattern = "/proc/sys/kernel/core_pattern";
    // The whole machine's: taken back by the shell, which may do that when its child was what did it.
    let written = format!(
        "was=$(cat {pattern}); actor write append {pattern} --content core.actor; cat {pattern}; echo $was >{pattern}"
    );
    vec![
        said("RF-307", "open (write)", &shell(&written), "core.actor"),
        said(
            "RF-309",
            "mount_source",
            &shell("actor namespace mount-tmpfs /dev/vda; grep -q ^/dev/vda /proc/mounts && echo is mounted"),
            "is mounted",
        ),
        said("RF-312", "setns", "actor namespace setns /proc/1/ns/uts", "entered"),
        said(
            "RF-326",
            "escape",
            &shell(
                "mkdir /tmp/v2; mount -t cgroup2 none /tmp/v2; mkdir /tmp/v2/beside; \
                 test -d /tmp/v2/beside && echo made; rmdir /tmp/v2/beside; umount /tmp/v2",
            ),
            "made",
        ),
        said("RF-409", "ptrace", "actor trace attach", "traced"),
    ]
}

fn network() -> Vec<Proof> {
    let socket = "/run/docker.sock";
    let visit = format!(
        "actor unix serve {socket} & until test -S {socket}; do :; done; actor unix visit {socket}; \
         mv {socket} /run/app.sock; actor unix take-leave /run/app.sock; wait"
    );
    // Nobody listens there: what arrives is counted in this network namespace, which is new.
    let datagram = "actor connect sendto 169.254.169.254:80; \
                    awk \"/^Udp: [0-9]/ {print \\\"arrived:\\\", \\$3}\" /proc/net/snmp";
    vec![
        said("RF-314", "connect", &shell(&visit), "1 came"),
        reached("actor connect tcp"),
        said("RF-510", "packet", &shell(datagram), "arrived: 1"),
        said("RF-513", "socket", "actor connect packet-raw", "done"),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ringfence_policy::{
        Catalogue, RuleCoverage,
        coverage::{TIERS, on_tier},
    };

    use super::*;

    #[test]
    fn every_operation_of_every_rule_is_tried_or_it_is_said_why_not() {
        let proofs = all();
        let tried = proofs.iter().map(|proof| (proof.rule.to_owned(), proof.deed.to_owned()));
        let not_tried = NOT_TRIED.map(|(rule, deed, _)| (rule.to_owned(), deed.to_owned()));
        let mut named = BTreeSet::new();
        for proof in tried.chain(not_tried) {
            assert!(named.insert(proof.clone()), "{proof:?} twice");
        }
        let mut there = BTreeSet::new();
        for rule in Catalogue::builtin().rules() {
            let operations = RuleCoverage::of(rule, &on_tier(TIERS[0].1)).operations;
            there.extend(operations.into_keys().map(|operation| (rule.id.to_string(), operation)));
        }
        assert_eq!(named, there);
    }

    #[test]
    fn quotes_match() {
        for proof in all() {
            assert!(shlex::split(&proof.command).is_some(), "{}", proof.command);
        }
    }
}
