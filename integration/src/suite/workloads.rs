//! What runs in the noise tests, and what of it the rules rightly report.

/// Something that people run in containers.
pub struct Workload {
    /// Its name, and its script's.
    pub name: &'static str,
    /// Ends with 0 only if everything in it worked.
    pub script: &'static str,
    /// The container's first program, against which the script is run from outside; none: the script is it.
    pub server: &'static [&'static str],
    /// Run from outside as well, as a kubelet's probes are.
    pub probes: &'static [&'static [&'static str]],
    /// What is to be reported because it is true: it must be.
    pub truths: &'static [Report],
    /// What is reported although it is not true, because the rule cannot know better, as its own text says. Everything
    /// that stands neither here nor above is a fault.
    pub limits: &'static [Report],
}

/// Some violations.
pub struct Report {
    /// Of which rule.
    pub rule: &'static str,
    /// The beginning of the file's path.
    pub object: &'static str,
    /// The beginning of the executable's path.
    pub exe: &'static str,
    /// Why they are, or are not, what the rule means.
    pub why: &'static str,
}

macro_rules! workload {
    ($name:literal $(, $field:ident: $value:expr)* $(,)?) => {
        Workload { $($field: $value,)* ..Workload::new($name, include_str!(concat!("noise/", $name, ".sh"))) }
    };
}

impl Workload {
    const fn new(name: &'static str, script: &'static str) -> Self {
        Self { name, script, server: &[], probes: &[], truths: &[], limits: &[] }
    }
}

const fn report(rule: &'static str, object: &'static str, exe: &'static str, why: &'static str) -> Report {
    Report { rule, object, exe, why }
}

const DIRECTORY: &str = "a directory: by the caller's string it cannot be told from a file";
const PERL: &str = "perl reads the shadow file whenever root looks up an account";

/// All of them.
pub const WORKLOADS: &[Workload] = &[
    workload!(
        "shells",
        limits: &[report("RF-902", "/tmp/", "/usr/bin/chmod", DIRECTORY)],
    ),
    workload!(
        "packages",
        truths: &[
            report("RF-901", "/usr/bin/hello", "/usr/bin/hello", "it was installed while the container ran"),
            report("RF-901", "/usr/bin/sudo", "/usr/bin/sudo", "it was installed while the container ran"),
            report("RF-905", "/usr/lib/", "/usr/bin/python3", "libraries were installed while the container ran"),
            report("RF-905", "/usr/libexec/sudo/", "/usr/bin/sudo", "so were sudo's own"),
            report("RF-212", "/usr/bin/greet", "/usr/bin/update-alternatives", "it puts a link there"),
            report("RF-501", "/etc/shadow", "/usr/bin/perl", PERL),
        ],
    ),
    workload!("upgrade", truths: &[
        report("RF-901", "/usr/bin/", "/usr/bin/", "the shell has been replaced"),
        report("RF-905", "/usr/lib/x86_64-linux-gnu/", "/usr/bin/", "the C library has been replaced"),
    ]),
    workload!("web", server: &["nginx", "-g", "daemon off;"], probes: &[
        &["curl", "--silent", "--fail", "http://127.0.0.1/"],
        &["sh", "-c", "kill -0 1 && test -s /run/nginx.pid"],
        &["bash", "-c", "exec 3<> /dev/tcp/127.0.0.1/80"],
    ]),
    workload!("postgres", truths: &[report("RF-501", "/etc/shadow", "/usr/bin/perl", PERL)]),
    workload!(
        "redis",
        server: &["redis-server", "--dir", "/var/lib/redis"],
        probes: &[&["redis-cli", "ping"], &["sh", "-c", "redis-cli ping | grep -q PONG"]],
    ),
    workload!(
        "python",
        truths: &[
            report("RF-902", "/opt/python/environment/bin/", "/usr/bin/python3", "pip makes commands executable"),
            report("RF-902", "/tmp/pip-target-", "/usr/bin/python3", "pip makes commands executable"),
        ],
        limits: &[
            report("RF-902", "/tmp/pip-modern-metadata-", "/usr/bin/python3", DIRECTORY),
            report("RF-902", "/opt/python/source/build/", "/usr/bin/python3", DIRECTORY),
        ],
    ),
    workload!("perl"),
    workload!("node"),
    workload!(
        "compile",
        truths: &[
            report("RF-901", "/opt/build/", "/opt/build/", "what was compiled is started"),
            report("RF-905", "/opt/build/", "/opt/build/", "a library that was compiled is loaded"),
            report("RF-902", "/opt/build/", "/usr/bin/x86_64-linux-gnu-ld", "the linker makes programs executable"),
            report("RF-902", "/opt/build/", "/usr/bin/x86_64-linux-gnu-strip", "strip keeps them so"),
        ],
    ),
    workload!("git"),
    workload!("ssh", server: &["bash", "-c", "mkdir -p /run/sshd && exec /usr/sbin/sshd -D"]),
    workload!("daemons"),
];
