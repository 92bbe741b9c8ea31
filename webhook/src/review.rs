//! `AdmissionReview`: what the API server asks, and our answer.
//!
//! The types of `kube` would read the whole object, with everything in it; here the object stays text until it is known
//! which parts matter. Rulesets and policies are judged as text, so that every problem has its field.

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::UserInfo;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The only version of the API that every supported server speaks.
const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// What is being done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
    /// A connection to it is opened, such as `exec`.
    Connect,
}

/// The type of an object, in the plural.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Resource {
    /// API group; empty for the core.
    #[serde(default)]
    pub group: String,
    /// As in `pods`.
    pub resource: String,
}

/// What the API server asks.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// For the answer.
    pub uid: String,
    /// What kind of object.
    pub resource: Resource,
    /// The part of it, such as `status`; empty for the object itself.
    #[serde(default)]
    pub sub_resource: String,
    /// Its name; empty if there is none yet.
    #[serde(default)]
    pub name: String,
    /// Its namespace; empty if it has none.
    #[serde(default)]
    pub namespace: String,
    /// What is being done.
    pub operation: Operation,
    /// By whom.
    pub user_info: UserInfo,
    /// As it shall be; absent when it is deleted.
    #[serde(borrow, default)]
    pub object: Option<&'a RawValue>,
    /// As it is; absent when it is new.
    #[serde(borrow, default)]
    pub old_object: Option<&'a RawValue>,
}

impl Request<'_> {
    /// The object as it shall be, in JSON.
    pub fn new_text(&self) -> Result<&str, ReviewError> {
        self.object.map(RawValue::get).ok_or(ReviewError::Without("object"))
    }

    /// The object as it is, in JSON.
    pub fn old_text(&self) -> Result<&str, ReviewError> {
        self.old_object.map(RawValue::get).ok_or(ReviewError::Without("oldObject"))
    }

    /// `pods/status`, or `runtimerulesets.ringfence.dev`.
    pub fn what(&self) -> String {
        let Resource { group, resource } = &self.resource;
        let group = if group.is_empty() { String::new() } else { format!(".{group}") };
        let part = if self.sub_resource.is_empty() { String::new() } else { format!("/{}", self.sub_resource) };
        format!("{resource}{group}{part}")
    }
}

/// Why a request cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It is not an `AdmissionReview`.
    #[error("this is not an AdmissionReview of admission.k8s.io/v1: {0}")]
    Parse(#[from] serde_json::Error),
    /// It is another kind of object.
    #[error("apiVersion '{api_version}', kind '{kind}' is not known here: send AdmissionReview of admission.k8s.io/v1")]
    Kind {
        /// Its version.
        api_version: String,
        /// Its kind.
        kind: String,
    },
    /// A part is missing that its operation needs.
    #[error("the AdmissionReview has no 'request.{0}'")]
    Without(&'static str),
    /// The object in it is not what its resource says.
    #[error("'request.{part}' is not an object with metadata: {error}")]
    Object {
        /// `object` or `oldObject`.
        part: &'static str,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

/// Reads what the API server sent.
pub fn parse(body: &[u8]) -> Result<Request<'_>, ReviewError> {
    let Review { api_version, kind, request } = serde_json::from_slice(body)?;
    if api_version != API_VERSION || kind != KIND {
        return Err(ReviewError::Kind { api_version, kind });
    }
    request.ok_or(ReviewError::Without("uid"))
}

/// Our answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Why not; nothing: it may be done.
    pub refusal: Option<Refusal>,
    /// What the user is told beside.
    pub warnings: Vec<String>,
    /// What is changed first; nothing if empty.
    pub patch: json_patch::Patch,
}

/// Why something may not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// For the user.
    pub message: String,
}

impl Answer {
    /// Nothing to say.
    pub fn allow() -> Self {
        Self::default()
    }

    /// The user may not do that.
    pub fn forbid(message: impl Into<String>) -> Self {
        Self { refusal: Some(Refusal { code: 403, message: message.into() }), ..Self::default() }
    }

    /// Something about the object is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { refusal: Some(Refusal { code: 422, message: message.into() }), ..Self::default() }
    }

    /// It is in the way of something else.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { refusal: Some(Refusal { code: 409, message: message.into() }), ..Self::default() }
    }

    /// Allowed, with warnings.
    pub fn warn(warnings: Vec<String>) -> Self {
        Self { warnings, ..Self::default() }
    }

    /// As the API server reads it, for the request with this uid.
    pub fn into_json(self, uid: &str) -> serde_json::Result<Vec<u8>> {
        let patch = if self.patch.is_empty() { None } else { Some(ByteString(serde_json::to_vec(&self.patch)?)) };
        let status = self.refusal.as_ref().map(|refusal| Status { code: refusal.code, message: &refusal.message });
        serde_json::to_vec(&ReviewOut {
            api_version: API_VERSION,
            kind: KIND,
            response: Response {
                uid,
                allowed: self.refusal.is_none(),
                status,
                patch_type: patch.is_some().then_some("JSONPatch"),
                patch,
                warnings: &self.warnings,
            },
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReviewOut<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Status<'a> {
    code: u16,
    message: &'a str,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn review() -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "1", "operation": "UPDATE", "userInfo": {"username": "a", "groups": ["b"], "extra": {"c": ["d"]}},
                "name": "web", "namespace": "shop", "resource": {"group": "", "version": "v1", "resource": "pods"},
                "object": {"metadata": {"labels": {"a": "b"}}}, "oldObject": {"metadata": {}},
            },
        })
    }

    #[test]
    fn a_request_is_read() {
        let text = review().to_string();
        let request = parse(text.as_bytes()).unwrap();
        assert_eq!((request.what(), request.operation), ("pods".to_owned(), Operation::Update));
        assert_eq!(request.new_text().unwrap(), r#"{"metadata":{"labels":{"a":"b"}}}"#);
        let text = text.replace("\"oldObject\":{\"metadata\":{}}", "\"oldObject\":null");
        let error = parse(text.as_bytes()).unwrap().old_text().unwrap_err();
        assert_eq!(error.to_string(), "the AdmissionReview has no 'request.oldObject'");
    }

    #[test]
    fn an_answer_is_what_the_api_server_reads() {
        let patch = json_patch::Patch(vec![]);
        let warning = Answer { warnings: vec!["w".to_owned()], patch, ..Answer::default() };
        let read = |answer: Answer| serde_json::from_slice::<Value>(&answer.into_json("7").unwrap()).unwrap();
        let expected = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": "7", "allowed": true, "warnings": ["w"]}});
        assert_eq!(read(warning), expected);
        let refused = read(Answer::conflict("m"));
        assert_eq!(refused["response"], json!({"uid": "7", "allowed": false, "status": {"code": 409, "message": "m"}}));
    }

    fn everything(body: &[u8]) {
        let Ok(request) = parse(body) else { return };
        let snapshots = [std::sync::Arc::new(crate::validate::tests::snapshot())];
        let accounts = crate::identity::Accounts::new("ringfence", "w", "e");
        let _ = crate::validate::validate(&request, &snapshots, &accounts);
        let _ = crate::mutate::answer(&request, &snapshots[0]);
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            everything(&body);
        }

        /// A review of which a piece was replaced, so that most of it still parses.
        #[test]
        fn damaged_reviews_get_an_answer(
            at in any::<prop::sample::Index>(),
            length in 0usize..12,
            piece in prop_oneof![
                Just("null".to_owned()), Just("{}".to_owned()), Just("[]".to_owned()), Just("1".to_owned()),
                Just("\"\\ud800\"".to_owned()), Just("\"DELETE\"".to_owned()), ".{0,4}",
            ],
            resource in prop_oneof![
                Just("pods"), Just("runtimerulesets"), Just("runtimepolicies"), Just("deployments"), Just("bindings"),
            ],
        ) {
            let mut review = review();
            review["request"]["resource"]["resource"] = json!(resource);
            let group = match resource {
                "deployments" => "apps",
                resource if resource.starts_with("runtime") => "ringfence.dev",
                _ => "",
            };
            review["request"]["resource"]["group"] = json!(group);
            let mut text = review.to_string();
            let start = at.index(text.len());
            let end = (start + length).min(text.len());
            text.replace_range(start..end, &piece);
            everything(text.as_bytes());
        }
    }
}
