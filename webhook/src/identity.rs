//! Who asks.

use k8s_openapi::api::authentication::v1::UserInfo;

/// Prefix of a service account's user name.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Group of the nodes' kubelets.
const KUBELETS: &str = "system:nodes";
/// Claims of a token that is bound to a pod, as the API server passes them on: its node (from 1.30 on by default), ...
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// ... and the pod itself (from 1.22 on).
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// The user names of our own service accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// Webhook and reconciler.
    pub webhook: String,
    /// The nodes' enforcers.
    pub enforcer: String,
    /// Our namespace.
    pub namespace: String,
}

impl Accounts {
    /// By namespace and names of the service accounts.
    pub fn new(namespace: &str, webhook: &str, enforcer: &str) -> Self {
        let user = |name| format!("{SERVICE_ACCOUNT}{namespace}:{name}");
        Self { webhook: user(webhook), enforcer: user(enforcer), namespace: namespace.to_owned() }
    }

    /// Who a user is.
    pub fn caller(&self, user: &UserInfo) -> Caller {
        match user.username.as_deref() {
            Some(name) if name == self.webhook => Caller::Webhook,
            Some(name) if name == self.enforcer => Caller::Enforcer(Bound::of(user)),
            _ => Caller::Other,
        }
    }
}

/// Whether a user is a node's kubelet.
pub fn is_kubelet(user: &UserInfo) -> bool {
    user.groups.iter().flatten().any(|group| group == KUBELETS)
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// We ourselves.
    Webhook,
    /// A node's enforcer.
    Enforcer(Bound),
    /// Anybody else.
    Other,
}

/// What an enforcer's token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// To a pod of this node.
    Node(String),
    /// To this pod of our namespace, whose node has to be looked up.
    Pod(String),
    /// To nothing: it could come from any node.
    Nothing,
}

impl Bound {
    fn of(user: &UserInfo) -> Self {
        let claim = |key| user.extra.as_ref()?.get(key)?.first().filter(|claim| !claim.is_empty()).cloned();
        match (claim(NODE_NAME), claim(POD_NAME)) {
            (Some(node), _) => Self::Node(node),
            (None, Some(pod)) => Self::Pod(pod),
            (None, None) => Self::Nothing,
        }
    }
}
