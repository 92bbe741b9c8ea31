//! `ringfence uninstall`, with programs that the test writes. Alone in its file: another test's fork could hold a program
//! open for writing, and it could not be started then.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

#[test]
fn uninstall_hands_over_to_the_enforcer_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ringfence, enforcer) = (folder.path().join("ringfence"), folder.path().join("enforcer"));
    fs::copy(env!("CARGO_BIN_EXE_ringfence"), &ringfence).unwrap();
    fs::write(&enforcer, "#!/bin/sh\necho \"enforcer got: $*\"\nexit 7\n").unwrap();
    fs::set_permissions(&enforcer, fs::Permissions::from_mode(0o755)).unwrap();
    let run = || Command::new(&ringfence).args(["uninstall", "--dry-run"]).env("PATH", "").output().unwrap();

    let output = run();
    assert_eq!((output.status.code(), &*output.stdout), (Some(7), &b"enforcer got: uninstall --dry-run\n"[..]));

    fs::remove_file(&enforcer).unwrap();
    let output = run();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("no `enforcer` lies beside this program or in PATH"), "{error}");
}
