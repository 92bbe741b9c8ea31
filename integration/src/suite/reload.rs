//! Rulesets change under the running enforcer.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use ringfence_abi::RULESETS;
use ringfence_actor::now;
use ringfence_control::Status;
use ringfence_policy::{Catalogue, Mitigation};

use super::Part;
use super::context::{Context, of};
use crate::cases::Needs;
use crate::rulesets::{MITIGATION, RULE, ruleset};
use crate::wait;

pub const PART: Part = Part::Table(&[
    ("reload/change-takes-effect", |context| tidily(context, change)),
    ("reload/broken-file-keeps-the-last-good-one", |context| tidily(context, broken)),
    ("reload/more-rulesets-come-and-go-than-the-kernel-holds", |context| tidily(context, many)),
]);

/// Whatever happens, the next test finds the folder as it was.
fn tidily(context: &mut Context, test: fn(&mut Context) -> Result<()>) -> Result<()> {
    let result = test(context);
    let file = context.start.rulesets.join("reload.yaml");
    if file.exists() {
        fs::remove_file(file)?;
        let restored = wait_for(context, "the file is gone", |status| !holds(status, "reload-"));
        return result.and(restored);
    }
    result
}

fn holds(status: &Status, prefix: &str) -> bool {
    status.rulesets.names.iter().any(|name| name.starts_with(prefix))
}

fn wait_for(context: &mut Context, what: &str, ready: impl Fn(&Status) -> bool) -> Result<()> {
    let noticed = wait::until(what, || Ok(ready(&context.enforcer()?.status()?)));
    noticed.with_context(|| context.enforcer_says())
}

fn write(context: &Context, mitigation: Mitigation) -> Result<()> {
    let rule = "RF-501".parse()?;
    let text = ruleset("reload", &[rule], mitigation);
    // One selector for both mitigations: what is reloaded is the mitigation.
    let text = text.replace(&format!("suite-mitigation: {mitigation}"), "suite-mitigation: log");
    Ok(fs::write(context.start.rulesets.join("reload.yaml"), text)?)
}

/// The violation of a running container, as asked for now.
fn violate(context: &Context, container: &crate::harness::Container) -> Result<Mitigation> {
    let from = now();
    container.exec(["cat", "/etc/shadow"])?;
    let matches = of(container, "RF-501");
    let event = context.journal.wait_for("the violation", |event| matches(event) && event.kernel_time_ns >= from)?;
    Ok(event.mitigation)
}

fn change(context: &mut Context) -> Result<()> {
    write(context, Mitigation::Log)?;
    wait_for(context, "a ruleset was added", |status| holds(status, "reload-log"))?;
    let spec = context.spec(Needs::Nothing, "reload", Mitigation::Log, ["actor", "sleep", "600000"]);
    let container = context.run(&spec)?;
    context.enforcer()?.container(container.id())?;
    ensure!(violate(context, &container)? == Mitigation::Log, "asked for something else than log");
    write(context, Mitigation::Isolate)?;
    wait_for(context, "a ruleset was changed", |status| holds(status, "reload-isolate"))?;
    ensure!(violate(context, &container)? == Mitigation::Isolate, "the running container still has the old ruleset");
    let state = context.enforcer()?.container(container.id())?;
    ensure!(state.isolated.is_some(), "it is not isolated");
    Ok(())
}

fn broken(context: &mut Context) -> Result<()> {
    write(context, Mitigation::Log)?;
    wait_for(context, "a ruleset was added", |status| holds(status, "reload-log"))?;
    let spec = context.spec(Needs::Nothing, "reload", Mitigation::Log, ["actor", "sleep", "600000"]);
    let container = context.run(&spec)?;
    context.enforcer()?.container(container.id())?;
    let file = context.start.rulesets.join("reload.yaml");
    let good = fs::read_to_string(&file)?;
    fs::write(&file, good.replace("RF-501", "RF-999"))?;
    wait_for(context, "a file is broken", |status| status.rulesets.rejected.is_some())?;
    let status = context.enforcer()?.status()?;
    let why = status.rulesets.rejected.as_ref().map(ToString::to_string).context("no reason")?;
    ensure!(why.contains("reload.yaml") && why.contains("RF-999"), "the reason names neither file nor fault: {why}");
    ensure!(holds(&status, "reload-log"), "the last good ruleset is gone");
    ensure!(violate(context, &container)? == Mitigation::Log, "the last good ruleset does not govern any more");
    fs::write(&file, good)?;
    wait_for(context, "the file is good again", |status| status.rulesets.rejected.is_none())?;
    ensure!(Catalogue::builtin().get("RF-999".parse()?).is_none(), "RF-999 exists, take another");
    Ok(())
}

/// Label of containers whose rulesets are all different: with `0` to the highest bit behind it.
const BIT: &str = "suite-bit-";
/// As many rulesets, one rule each, make enough combinations.
const BITS: usize = 10;

/// A node sees more different resolved rulesets in its life than the kernel's tables hold at one time.
fn many(context: &mut Context) -> Result<()> {
    let rules = Catalogue::builtin().rules().map(|rule| rule.id).filter(|rule| rule.to_string() != "RF-501");
    let mut rulesets = Vec::new();
    for (bit, rule) in rules.take(BITS).enumerate() {
        let one = ruleset(&format!("reload-{bit}"), &[rule], Mitigation::Log);
        let selector = format!("{RULE}: reload-{bit}\n      {MITIGATION}: log");
        ensure!(one.contains(&selector), "not the selector that is to be replaced: {one}");
        rulesets.push(one.replace(&selector, &format!("{BIT}{bit}: \"yes\"")));
    }
    fs::write(context.start.rulesets.join("reload.yaml"), rulesets.join("---\n"))?;
    let all = |status: &Status| (0..BITS).all(|bit| holds(status, &format!("reload-{bit}-log")));
    wait_for(context, "rulesets were added", all)?;
    let more = RULESETS as usize + 20;
    ensure!(more < 1 << BITS, "not enough combinations");
    let mut stays = None;
    for combination in 1..=more {
        let command = ["actor", "sleep", "600000"];
        let mut spec = context.spec(Needs::Nothing, "RF-501", Mitigation::Log, command).host_network();
        for bit in (0..BITS).filter(|bit| combination >> bit & 1 == 1) {
            spec = spec.label(&format!("{BIT}{bit}"), "yes");
        }
        // Known from now on; whether it is started makes no difference to its ruleset.
        let mut container = context.node.create(&spec)?;
        let known = context.enforcer()?.container(container.id())?;
        let count = known.rulesets.len();
        let expected = usize::try_from(combination.count_ones())? + 1;
        ensure!(count == expected, "combination {combination:b} has {count} rulesets: {known:?}");
        if combination == 1 || combination == more {
            container.start()?;
            ensure!(violate(context, &container)? == Mitigation::Log, "combination {combination}");
        }
        // The first one lives on; what it has in the generations to come is its own ruleset still.
        if combination == 1 {
            stays = Some(container);
        }
    }
    let stays = stays.context("the first one was started")?;
    ensure!(violate(context, &stays)? == Mitigation::Log, "the first one");
    Ok(())
}
