//! Lifting a pod's isolation.
//!
//! The user takes the pod's label off, if he may; the enforcer of its node sees that, opens the network, and takes its
//! own notes off. That is what is waited for: a label alone lets no packet through.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use kube::{
    Api, Error, ResourceExt,
    api::{Patch, PatchParams},
};
use ringfence_api::names;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    Connection,
    connection::Open,
    pods::{self, Isolation, Pod},
};
use crate::{
    failure::{Failure, Outcome},
    output,
};

/// Between two looks at the pod.
const PAUSE: Duration = Duration::from_millis(200);

/// `ringfence cluster release`.
#[derive(Debug, Args)]
#[command(
    after_help = "You need `patch` of pods and `update` of pods/isolation of group ringfence.dev in its namespace.\n\n\
                        Example:\n  ringfence cluster release web-5c7 -n shop"
)]
pub struct Release {
    /// The pod
    #[arg(value_name = "POD")]
    name: String,
    /// How many seconds its node may take; 0: do not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
}

impl Release {
    /// Releases it.
    pub async fn run(self, connection: &Connection) -> Outcome {
        let name = self.name.strip_prefix("pod/").or(self.name.strip_prefix("pods/")).unwrap_or(&self.name);
        let open = connection.open().await?;
        let api = pods::of_namespace(open.client.clone(), &open.namespace);
        let work = Work { name, open: &open, api };
        let pod = work.look().await?;
        let (Some(pod), Some(isolation)) = (&pod, pod.as_ref().and_then(Isolation::of)) else {
            return Err(work.nothing_to_do(pod.as_ref()));
        };
        if isolation.wanted {
            work.unlabel(pod).await?;
        }
        if self.timeout == 0 {
            return output::text(&format!("{work} is to be released\n"));
        }
        work.wait(pod, &isolation, Duration::from_secs(self.timeout)).await?;
        output::text(&format!("{work} is released\n"))
    }
}

/// The pod that it is about.
struct Work<'a> {
    name: &'a str,
    open: &'a Open,
    api: Api<Pod>,
}

impl std::fmt::Display for Work<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pod '{}' in namespace '{}'", self.name, self.open.namespace)
    }
}

impl Work<'_> {
    async fn look(&self) -> Result<Option<Pod>, Failure> {
        self.api.get_opt(self.name).await.map_err(|error| self.open.failure(error))
    }

    fn nothing_to_do(&self, pod: Option<&Pod>) -> Failure {
        match pod {
            Some(_) => Failure::input(format_args!("{self} is not isolated")),
            None => Failure::input(format_args!("there is no {self}")),
        }
    }

    /// Only of this very pod: one that came in its place is not what the user has looked at.
    async fn unlabel(&self, pod: &Pod) -> Outcome {
        let patch =
            json!({"metadata": {"uid": pod.metadata.uid, "labels": {names::ISOLATED_LABEL: serde_json::Value::Null}}});
        match self.api.patch_metadata(self.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Err(self.replaced()),
            Err(error) => Err(self.open.failure(error)),
        }
    }

    fn replaced(&self) -> Failure {
        Failure::Failed(anyhow!("{self} was deleted meanwhile"))
    }

    async fn wait(&self, before: &Pod, isolation: &Isolation, patience: Duration) -> Outcome {
        let until = Instant::now() + patience;
        loop {
            let now = self.look().await?.filter(|pod| pod.uid() == before.uid());
            match state(now.as_ref(), isolation) {
                State::Released => return Ok(()),
                State::Gone => return Err(self.replaced()),
                State::Again(by) => {
                    return Err(Failure::Failed(anyhow!("{self} was released, and is isolated again (by {by})")));
                }
                State::Waiting if Instant::now() >= until => return Err(self.silent(before, patience)),
                State::Waiting => sleep(PAUSE).await,
            }
        }
    }

    /// The node's enforcer has not said a word.
    fn silent(&self, pod: &Pod, patience: Duration) -> Failure {
        let node = pod.spec.node_name.as_deref().unwrap_or("(none)");
        Failure::Failed(anyhow!(
            "{self} has its label no more, but the enforcer of node '{node}' has not released it within {} s: is it \
             running? (`kubectl get pods -A -o wide -l app.kubernetes.io/name=ringfence-enforcer`)",
            patience.as_secs()
        ))
    }
}

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Released,
    /// It was deleted.
    Gone,
    /// By another violation, after it had been released.
    Again(String),
}

/// `before` is what was noted when the release was asked for.
fn state(pod: Option<&Pod>, before: &Isolation) -> State {
    let Some(pod) = pod else { return State::Gone };
    match Isolation::of(pod) {
        None => State::Released,
        Some(now) if now.wanted && (&now.since, &now.by) != (&before.since, &before.by) => {
            State::Again(now.by.unwrap_or_else(|| "what is not noted".to_owned()))
        }
        Some(_) => State::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_when_the_enforcer_says_so() {
        let (label, by, since) = (names::ISOLATED_LABEL, names::ISOLATED_BY_ANNOTATION, names::ISOLATED_AT_ANNOTATION);
        let pod = |label: &serde_json::Value, annotations: &serde_json::Value| pods::tests::pod(label, annotations);
        let isolated = pod(&json!({label: "true"}), &json!({by: "RF-901", since: "1"}));
        let before = Isolation::of(&isolated).expect("it is isolated");
        assert_eq!(state(None, &before), State::Gone);
        assert_eq!(state(Some(&isolated), &before), State::Waiting);
        let unlabelled = pod(&json!({}), &json!({by: "RF-901", since: "1"}));
        assert_eq!(state(Some(&unlabelled), &before), State::Waiting);
        assert_eq!(state(Some(&pod(&json!({}), &json!({}))), &before), State::Released);
        let again = pod(&json!({label: "true"}), &json!({by: "RF-902", since: "2"}));
        assert_eq!(state(Some(&again), &before), State::Again("RF-902".to_owned()));
    }
}
