//! The custom resource definitions, as the chart installs them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{RuntimePolicy, RuntimeRuleset};

/// A definition and the file of the chart that holds it.
pub struct CrdFile {
    /// Its name, without a folder.
    pub name: String,
    /// The definition.
    pub definition: CustomResourceDefinition,
}

/// All custom resource definitions.
pub fn crds() -> Vec<CrdFile> {
    [RuntimeRuleset::crd(), RuntimePolicy::crd()]
        .into_iter()
        .map(|definition| CrdFile { name: format!("{}.yaml", definition.spec.names.plural), definition })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Mitigation;

    /// The schema of `spec`.
    fn spec(plural: &str) -> Value {
        let file = crds().into_iter().find(|file| file.name == format!("{plural}.yaml")).unwrap();
        let definition = serde_json::to_value(file.definition).unwrap();
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
    }

    #[test]
    fn what_a_schema_can_check_it_checks() {
        let ruleset = spec("runtimerulesets");
        let rules = &ruleset["properties"]["rules"];
        assert_eq!(rules["x-kubernetes-list-type"], "map");
        assert_eq!(rules["x-kubernetes-list-map-keys"], json!(["rule"]));
        assert_eq!(rules["minItems"], 1);
        let words = &rules["items"]["properties"]["mitigation"]["enum"];
        assert_eq!(*words, json!(Mitigation::ALL.map(Mitigation::name)));
        let values = &ruleset["properties"]["selector"]["properties"]["matchLabels"]["additionalProperties"];
        assert!(values["pattern"].is_string() && values["maxLength"] == 63, "{values}");

        let exception = &rules["items"]["properties"]["exceptions"]["items"];
        assert_eq!(exception["minProperties"], 1);
        for key in ["processes", "ancestors", "paths", "destinations"] {
            assert!(exception["properties"][key]["items"]["pattern"].is_string(), "{key}: {exception}");
        }

        let policy = spec("runtimepolicies");
        let limits = &policy["properties"]["limits"]["properties"];
        assert!(limits["governStaticPods"]["items"]["pattern"].is_string(), "{limits}");
        let ports = &policy["properties"]["isolation"]["properties"]["exceptions"]["items"]["properties"]["ports"];
        assert_eq!(ports["minItems"], 1);
        assert_eq!(policy["required"], json!(["rulesets"]));
        assert_eq!(policy["properties"]["maxMitigation"]["default"], "terminate");
        assert_eq!(policy["properties"]["excludedNamespaces"]["default"], json!(["kube-system"]));
        assert_eq!(policy["properties"]["rulesets"]["x-kubernetes-list-type"], "set");
    }

    /// Constructs that the API server refuses in a structural schema.
    #[test]
    fn schemas_are_structural_and_described() {
        fn walk(path: &str, schema: &Value) {
            for word in ["oneOf", "anyOf", "allOf", "not", "$ref"] {
                assert!(schema.get(word).is_none(), "{path}: {word}");
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                assert!(
                    property["description"].as_str().is_some_and(|text| !text.is_empty()),
                    "{path}: no description"
                );
                if property["type"] == "array" {
                    assert!(property.get("x-kubernetes-list-type").is_some(), "{path}: no list type");
                }
                walk(&path, property);
            }
            for inner in ["items", "additionalProperties"] {
                if let Some(schema) = schema.get(inner).filter(|schema| schema.is_object()) {
                    walk(&format!("{path}.{inner}"), schema);
                }
            }
        }
        for file in crds() {
            let definition = serde_json::to_value(file.definition).unwrap();
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            for part in ["spec", "status"] {
                walk(&format!("{} {part}", file.name), &schema["properties"][part]);
            }
        }
    }
}
