//! Answers to what a decision leaves open, from the API server.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::UserInfo;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use ringfence_api::GROUP;
use tracing::warn;

use crate::validate::Question;

/// The API server waits five seconds for us.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the API server.
#[derive(Clone)]
pub struct Asker {
    client: Client,
    own_namespace: String,
}

impl Asker {
    /// With the right to create `SubjectAccessReview`s, and to get pods of our own namespace.
    pub fn new(client: Client, own_namespace: &str) -> Self {
        Self { client, own_namespace: own_namespace.to_owned() }
    }

    /// Whether it is so. Where the API server does not say, it is not.
    pub async fn ask(&self, question: &Question, user: &UserInfo) -> bool {
        let answer = async {
            match question {
                Question::MayRelease { namespace, pod } => self.may_release(user, namespace, pod).await,
                Question::RunsOn { pod, node } => self.runs_on(pod, node).await,
            }
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                warn!(?question, %error, "cannot ask the API server: refused");
                false
            }
            Err(_) => {
                warn!(?question, "the API server does not answer: refused");
                false
            }
        }
    }

    async fn may_release(&self, user: &UserInfo, namespace: &str, pod: &str) -> kube::Result<bool> {
        let review = SubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SubjectAccessReviewSpec {
                user: user.username.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some("update".to_owned()),
                    group: Some(GROUP.to_owned()),
                    version: Some("*".to_owned()),
                    resource: Some("pods".to_owned()),
                    subresource: Some("isolation".to_owned()),
                    namespace: Some(namespace.to_owned()),
                    name: Some(pod.to_owned()),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            status: None,
        };
        let review = Api::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        Ok(review.status.is_some_and(|status| status.allowed))
    }

    async fn runs_on(&self, pod: &str, node: &str) -> kube::Result<bool> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.own_namespace);
        let pod = api.get_opt(pod).await?;
        Ok(pod.and_then(|pod| pod.spec?.node_name).is_some_and(|name| name == node))
    }
}
