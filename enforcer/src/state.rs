//! What outlives the enforcer but not the node: which rules the lines of the generation in force belong to.
//!
//! Everything else is found again where it is: slots in the kernel's maps, containers at the runtime.

use ringfence_policy::{Catalogue, RuleId, Tables, compile};
use std::{collections::BTreeSet, fs, io, path::Path, sync::Arc};

const FILE: &str = "generation.json";

/// Notes a generation before it comes into force. Replaces the file whole.
pub fn save(dir: &Path, generation: u32, tables: &Tables) -> io::Result<()> {
    let rules: BTreeSet<String> = ringfence_abi::Class::ALL
        .into_iter()
        .flat_map(|class| tables.lines(class).iter().map(|line| line.rule.id.to_string()))
        .collect();
    let text = serde_json::json!({ "generation": generation, "rules": rules }).to_string();
    let next = dir.join(format!("{FILE}.next"));
    fs::write(&next, text)?;
    fs::rename(next, dir.join(FILE))
}

/// The tables of the generation that an earlier enforcer left in force, if it can be told.
pub fn restore(dir: &Path, generation: u32) -> Option<Arc<Tables>> {
    let text = fs::read_to_string(dir.join(FILE)).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    if value["generation"].as_u64() != Some(u64::from(generation)) {
        return None;
    }
    let names = value["rules"].as_array()?.iter().map(|rule| rule.as_str()).collect::<Option<Vec<_>>>()?;
    let catalogue = Catalogue::builtin();
    let ids: BTreeSet<RuleId> = names.into_iter().map(|name| Some(catalogue.find(name)?.id)).collect::<Option<_>>()?;
    compile(crate::rulesets::rules(&ids)).ok().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_restored_for_its_generation_alone() {
        let dir = tempfile::tempdir().unwrap();
        let tables = compile(Catalogue::builtin().rules().take(3)).unwrap();
        save(dir.path(), 7, &tables).unwrap();
        assert!(restore(dir.path(), 8).is_none());
        let restored = restore(dir.path(), 7).unwrap();
        for class in ringfence_abi::Class::ALL {
            assert_eq!(restored.lines(class).len(), tables.lines(class).len());
        }
    }
}
