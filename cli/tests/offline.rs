//! The commands that need no enforcer, run as a user runs them.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

const GOOD: &str = "\
apiVersion: ringfence.dev/v1alpha1
kind: RuntimeRuleset
metadata:
  name: web
spec:
  selector:
    matchLabels: { app: web }
  rules:
    - { rule: RF-901, mitigation: isolate }
    - { rule: TM-00000006, mitigation: log }
";

const EVERYWHERE: &str = "\
apiVersion: ringfence.dev/v1alpha1
kind: RuntimeRuleset
metadata:
  name: everywhere
spec:
  rules:
    - { rule: RF-901, mitigation: log }
";

fn ringfence<Argument: AsRef<OsStr>>(arguments: impl IntoIterator<Item = Argument>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfence")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Files in a folder of their own.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn lint(path: &Path) -> Output {
    ringfence([OsStr::new("lint"), path.as_os_str()])
}

#[test]
fn lint_accepts_good_rulesets() {
    let folder = folder(&[("web.yaml", GOOD), ("everywhere.yml", EVERYWHERE)]);
    let output = lint(folder.path());
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), "2 rulesets and 2 files: no problem\n"));
}

#[test]
fn lint_names_file_line_and_column_of_every_problem() {
    let wrong = GOOD.replace("RF-901", "RF-9O1").replace("mitigation: log", "mitigation: kill");
    let folder = folder(&[("web.yaml", &wrong)]);
    let file = folder.path().join("web.yaml");
    let output = lint(&file);
    assert_eq!(output.status.code(), Some(2));
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{}:9:15: ", file.display())), "{lines:?}");
    assert!(lines[0].contains("RF-9O1") && lines[0].contains("RF-901"), "{lines:?}");
    assert!(lines[1].starts_with(&format!("{}:10:", file.display())) && lines[1].contains("kill"), "{lines:?}");
}

#[test]
fn lint_refuses_what_holds_no_ruleset() {
    let empty = folder(&[("notes.txt", "")]);
    let output = lint(empty.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("holds no .yaml or .yml file"), "{}", stderr(&output));
    let output = lint(&empty.path().join("missing"));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("missing: No such file"), "{}", stderr(&output));
    assert_eq!(ringfence(["lint"]).status.code(), Some(2));
}

#[test]
fn names_from_the_file_system_cannot_drive_the_terminal() {
    let folder = folder(&[("\u{1b}[2J.yaml", "nonsense")]);
    let output = lint(folder.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).contains("\\x1b[2J.yaml:1:1: "), "{}", stdout(&output));
    assert!(!stdout(&output).contains('\u{1b}'));
}

#[test]
fn rules_are_listed_filtered_and_shown() {
    let all = ringfence(["rules"]);
    assert_eq!(all.status.code(), Some(0));
    let ids: Vec<_> = stdout(&all).lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(ids.len() >= 24 && ids.contains(&"RF-901"), "{ids:?}");

    let filtered = ringfence(["rules", "list", "--technique", "T1059", "--tactic", "execution", "-o", "json"]);
    let rules: serde_json::Value = serde_json::from_slice(&filtered.stdout).unwrap();
    let rules = rules.as_array().unwrap();
    assert!(!rules.is_empty() && rules.len() < ids.len());
    assert!(rules.iter().all(|rule| rule["tactic"] == "Execution"));

    let shown = ringfence(["rules", "show", "TM-00000006", "-o", "yaml"]);
    assert!(stdout(&shown).starts_with("id: RF-101\n"), "{}", stdout(&shown));
    let shown = ringfence(["rules", "show", "RF-101"]);
    assert!(stdout(&shown).starts_with("RF-101 ") && stdout(&shown).contains("\ntracepoint "), "{}", stdout(&shown));
}

#[test]
fn wrong_input_is_one_line_and_exit_status_2() {
    for (arguments, part) in [
        (&["rules", "show", "RF-8O1"][..], "did you mean 'RF-801'?"),
        (&["rules", "--tactic", "Evasion"], "Defense Impairment"),
        (&["rules", "--technique", "1059"], "T1059.004"),
        (&["events", "--rule", "TM-0000006"], "did you mean 'TM-00000006'?"),
        (&["explain", "--rulesets", "/nonexistent"], "/nonexistent: No such file"),
        (&["man", "--dir", "/nonexistent"], "/nonexistent: No such file"),
    ] {
        let output = ringfence(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stdout(&output).is_empty(), "{arguments:?}");
        let error = stderr(&output);
        assert!(error.starts_with("ringfence: ") && error.contains(part) && error.lines().count() == 1, "{error}");
    }
    for arguments in
        [&["explain"][..], &["explain", "c1", "--label", "a=b"], &["events", "--severity", "bad"], &["nope"]]
    {
        assert_eq!(ringfence(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn explain_says_who_asked_and_who_did_not() {
    let folder = folder(&[("web.yaml", GOOD), ("everywhere.yaml", EVERYWHERE)]);
    let rulesets = folder.path().to_str().unwrap();
    let output = ringfence(["explain", "--rulesets", rulesets, "--label", "app=web"]);
    let text = stdout(&output);
    assert!(text.starts_with("app=web\n\neverywhere: governs\n"), "{text}");
    assert!(text.contains("web: governs\n  app = web: met, the label is 'web'\n"), "{text}");
    let drift = text.lines().find(|line| line.starts_with("RF-901")).unwrap();
    assert!(drift.contains("isolate") && drift.ends_with("web (isolate), everywhere (log)"), "{drift}");

    let output = ringfence(["explain", "--rulesets", rulesets, "--label", "app=db", "-o", "json"]);
    let explanation: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(explanation["rules"][0]["mitigation"], "log");
    assert_eq!(explanation["rulesets"][1]["governs"], false);

    let output = ringfence(["explain", "--rulesets", rulesets, "--label", "app=a", "--label", "app=b"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--label app is given twice"), "{}", stderr(&output));
}

#[test]
fn broken_rulesets_are_explained_line_by_line() {
    let folder =
        folder(&[("web.yaml", &GOOD.replace("RF-901", "RF-9O1").replace("mitigation: log", "mitigation: kill"))]);
    let output = ringfence(["explain", "--rulesets", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output).lines().count(), 2, "{}", stderr(&output));
    assert!(stderr(&output).lines().all(|line| line.contains("web.yaml:")));
}

#[test]
fn closed_pipe_is_no_error() {
    for arguments in [&["rules"][..], &["rules", "-o", "json"], &["completion", "bash"], &["man"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn no_enforcer_is_one_sentence_that_names_the_socket() {
    for command in [&["status"][..], &["events"], &["isolate", "web"], &["release", "web"], &["explain", "web"]] {
        let output = ringfence(["--socket", "/nonexistent/enforcer.sock"].iter().chain(command));
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let expected = "ringfence: is the enforcer running? expected its socket at /nonexistent/enforcer.sock; \
                        --socket to change\n";
        assert_eq!(stderr(&output), expected);
    }
}

#[test]
fn manual_has_a_page_for_every_command() {
    let folder = folder(&[]);
    let output = ringfence([OsStr::new("man"), OsStr::new("--dir"), folder.path().as_os_str()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for page in ["ringfence.1", "ringfence-lint.1", "ringfence-rules-show.1", "ringfence-uninstall.1"] {
        assert!(folder.path().join(page).is_file(), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&ringfence(["completion", shell])).contains("uninstall"), "{shell}");
    }
}
