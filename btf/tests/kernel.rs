//! The running kernel's own BTF. Skipped, with the reason, where the kernel shows none.

use std::{fs, path::Path};

use ringfence_btf::{Btf, Error, MemberKind};

fn running_kernel() -> Option<Btf> {
    match Btf::from_sys_fs() {
        Ok(btf) => Some(btf),
        Err(Error::Io { path, source }) => {
            eprintln!("skipped: {}: {source}", path.display());
            None
        }
        Err(error) => panic!("the kernel's own BTF is refused: {error}"),
    }
}

#[test]
fn members_that_every_kernel_has_are_found() {
    let Some(btf) = running_kernel() else { return };
    for (structure, path) in [
        ("file", "f_path.dentry"),
        ("file", "f_inode"),
        ("linux_binprm", "file"),
        ("dentry", "d_parent"),
        ("mount", "mnt.mnt_root"),
        ("mount", "mnt_mountpoint"),
        ("inode", "i_sb"),
        ("super_block", "s_magic"),
        ("task_struct", "cgroups"),
        ("task_struct", "real_parent"),
        ("css_set", "subsys"),
        ("cgroup_subsys_state", "cgroup"),
        ("cgroup", "kn"),
        ("kernfs_node", "id"),
        ("sock", "__sk_common.skc_daddr"),
    ] {
        let offset = btf.offset(structure, path).unwrap_or_else(|error| panic!("{error}"));
        let size = btf.size(structure).unwrap_or_else(|error| panic!("{error}"));
        assert!(offset < size, "{structure}.{path} at {offset} lies outside of {size} bytes");
    }
    assert_eq!(btf.offset("mount", "mnt.mnt_root").ok(), btf.offset("mount", "mnt").ok(), "mnt_root comes first");
}

#[test]
fn sizes_and_kinds_are_those_of_the_user_space_headers() {
    let Some(btf) = running_kernel() else { return };
    assert_eq!(btf.size("sockaddr_in").ok(), Some(16));
    assert_eq!(btf.size("sockaddr_in6").ok(), Some(28));
    assert_eq!(btf.offset("sockaddr_in", "sin_addr.s_addr").ok(), Some(4));
    let member = btf.member("sockaddr_in6", "sin6_addr").expect("there");
    assert_eq!((member.offset, member.size, member.kind), (8, 16, MemberKind::Struct));
    let members = btf.members("sockaddr_in").expect("no bit fields in it");
    assert_eq!(members.iter().map(|member| member.offset).collect::<Vec<_>>(), [0, 2, 4, 8]);
}

#[test]
fn what_no_kernel_has_is_missing() {
    let Some(btf) = running_kernel() else { return };
    assert!(btf.offset("task_struct", "no_such_member").expect_err("made up").is_missing());
    assert!(btf.offset("no_such_struct", "x").expect_err("made up").is_missing());
    assert!(matches!(btf.offset("tcphdr", "syn"), Err(Error::Bitfield { .. })), "a bit field since TCP");
}

#[test]
fn tracepoints_have_their_arguments() {
    let Some(btf) = running_kernel() else { return };
    let args = btf.tracepoint_args("sched_process_exec").expect("on every kernel");
    let types: Vec<_> = args.iter().map(|arg| arg.ty.as_str()).collect();
    assert_eq!(types, ["struct task_struct *", "pid_t", "struct linux_binprm *"]);
    assert_eq!(btf.tracepoint_args("no_such_tracepoint"), None);
    assert_eq!(btf.function_args("security_file_open").map(|args| args.len()), Some(1));
}

#[test]
fn a_module_is_read_on_top_of_its_kernel() {
    let modules =
        fs::read_dir("/sys/kernel/btf").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.file_name()));
    let mut modules: Vec<_> =
        modules.filter_map(|name| name.into_string().ok()).filter(|name| name != "vmlinux").collect();
    // One is enough; overlayfs is the one that Ringfence asks for.
    modules.sort_by_key(|name| name != "overlay");
    modules.truncate(1);
    if modules.is_empty() {
        eprintln!("skipped: no module is loaded that has BTF");
    }
    for name in modules {
        let module = Btf::module(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(module.offset("file", "f_path.dentry").is_ok(), "{name} does not stand on the kernel's types");
        if name == "overlay" {
            let inode = module.offset("ovl_inode", "vfs_inode").expect("since Linux 4.13");
            let end = inode + module.size("inode").expect("in the kernel");
            assert_eq!(module.offset("ovl_inode", "__upperdentry").ok(), Some(end), "it follows the inode");
        }
    }
}

#[test]
fn a_damaged_kernel_does_not_panic() {
    let Ok(whole) = fs::read("/sys/kernel/btf/vmlinux") else {
        eprintln!("skipped: no /sys/kernel/btf/vmlinux");
        return;
    };
    for at in (0..whole.len()).step_by(whole.len() / 12 + 1) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        if let Ok(btf) = Btf::parse(&bytes) {
            let _ = btf.offset("file", "f_path.dentry");
            let _ = btf.size("task_struct");
        }
        let cut = Btf::parse(&whole[..at]).expect_err("cut short");
        assert!(matches!(cut, Error::Truncated { .. }), "{cut}");
    }
}

#[test]
fn a_file_that_is_no_btf_is_refused() {
    let this = std::env::current_exe().expect("this test");
    assert!(matches!(Btf::from_file(&this), Err(Error::NoSection)));
    assert!(matches!(Btf::from_file(Path::new("/nonexistent")), Err(Error::Io { .. })));
}
