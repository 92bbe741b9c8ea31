//! Which pods are cut off?

use clap::Args;
use kube::{ResourceExt, api::ListParams};
use ringfence_api::names;
use ringfence_control::{printable, render};
use serde::Serialize;

use super::{
    Connection,
    pods::{self, Isolation, Pod},
};
use crate::{failure::Outcome, output, status::Format};

/// `ringfence cluster isolated`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ringfence cluster isolated --all-namespaces -o json")]
pub struct Isolated {
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// One of them.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    namespace: String,
    pod: String,
    node: Option<String>,
    /// Rule, or `manual`.
    by: Option<String>,
    /// RFC 3339.
    since: Option<String>,
}

impl Isolated {
    /// Asks the API server.
    pub async fn run(self, connection: &Connection) -> Outcome {
        let open = connection.open().await?;
        let api = if self.all_namespaces {
            pods::of_all(open.client.clone())
        } else {
            pods::of_namespace(open.client.clone(), &open.namespace)
        };
        let entries = entries(api.list(&labelled()).await.map_err(|error| open.failure(error))?.items);
        match self.output {
            Format::Json => output::json(&entries),
            Format::Text if entries.is_empty() => {
                let place =
                    if self.all_namespaces { String::new() } else { format!(" in namespace {}", open.namespace) };
                output::text(&format!("no pod is isolated{place}\n"))
            }
            Format::Text => output::text(&table(&entries)),
        }
    }
}

/// Pods that are to be isolated.
pub fn labelled() -> ListParams {
    ListParams::default().labels(&format!("{}={}", names::ISOLATED_LABEL, names::ISOLATED))
}

fn entries(pods: Vec<Pod>) -> Vec<Entry> {
    let entry = |pod: Pod| {
        let isolation = Isolation::of(&pod)?;
        Some(Entry {
            namespace: pod.namespace().unwrap_or_default(),
            pod: pod.name_any(),
            node: pod.spec.node_name,
            by: isolation.by,
            since: isolation.since,
        })
    };
    let mut entries: Vec<_> = pods.into_iter().filter_map(entry).collect();
    entries.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
    entries
}

fn table(entries: &[Entry]) -> String {
    let shown = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
    let rows = entries.iter().map(|entry| {
        [entry.namespace.clone(), entry.pod.clone(), shown(&entry.node), shown(&entry.by), shown(&entry.since)]
    });
    render::table(&["NAMESPACE", "POD", "NODE", "BY", "SINCE"], rows) + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_isolated_pod_is_a_row() {
        let label = json!({names::ISOLATED_LABEL: names::ISOLATED});
        let noted = json!({names::ISOLATED_BY_ANNOTATION: "RF-901\u{1b}[2J", names::ISOLATED_AT_ANNOTATION: "now"});
        let mut other = pods::tests::pod(&label, &noted);
        other.metadata.name = Some("a".to_owned());
        let pods = vec![pods::tests::pod(&label, &json!(null)), other, pods::tests::pod(&json!({}), &json!(null))];
        let expected = "\
NAMESPACE  POD  NODE    BY              SINCE
shop       a    node-1  RF-901\\x1b[2J  now
shop       web  node-1  -               -
";
        let found = table(&entries(pods));
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&found), words(expected));
    }
}
