//! What is written about the queue for other programs: the API's description, alert rules, a dashboard.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::process::run;
use crate::harness::{API_SECRET, Event, Folder, Gateway, Queueing, Upstream, api, request};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The description with every reference resolved.
fn description() -> Value {
    let whole: Value = serde_yaml::from_str(&read("docs/openapi.yaml")).unwrap();
    resolved(&whole, &whole)
}

fn resolved(value: &Value, whole: &Value) -> Value {
    if let Some(reference) = value.get("$ref") {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        let target = whole.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        return resolved(target, whole);
    }
    match value {
        Value::Object(map) => {
            let each = map.iter().map(|(key, value)| (key.clone(), resolved(value, whole)));
            Value::Object(each.collect())
        }
        Value::Array(items) => items.iter().map(|item| resolved(item, whole)).collect(),
        other => other.clone(),
    }
}

/// Whether `value` is as `schema` says, and has nothing that it does not say.
fn fits(value: &Value, schema: &Value, place: &str) {
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() && !types.contains(&"number") => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(types.contains(&kind), "{place} is {kind}, not {types:?}");
    if let (Value::String(_), Value::Array(words)) = (value, &schema["enum"]) {
        assert!(words.contains(value), "{place}: {value}");
    }
    if let Value::Array(items) = value {
        items.iter().for_each(|item| fits(item, &schema["items"], place));
    }
    if let Value::Object(map) = value {
        for required in schema["required"].as_array().unwrap() {
            assert!(
                map.contains_key(required.as_str().unwrap()),
                "{place} has no {required}"
            );
        }
        for (key, value) in map {
            let known = &schema["properties"][key];
            assert!(known.is_object(), "{place} has {key}, which is not described");
            fits(value, known, &format!("{place}.{key}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_as_described() {
    // Whoever generates a client from the description gets one that does not work.
    let description = description();
    let folder = Folder::new();
    let upstream = Upstream::status(|_| 410).await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    request(gateway.address, &Event::of("github", "1").bytes()).await;
    let page = gateway.listed("state=dead", 1).await;
    let id = page["deliveries"][0]["id"].to_string();
    let mut asked = 0;
    // What changes comes last, and what removes last of all.
    let changes = ["cancel", "retry", "purge"];
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let target = path.replace("{event}", &id).replace("{route}", "github");
            let targets: Vec<String> = match target.contains("{change}") {
                true => changes.map(|change| target.replace("{change}", change)).into(),
                false => vec![target],
            };
            for target in targets {
                let query = if target.contains("{") || method == "get" {
                    ""
                } else {
                    "?route=none"
                };
                let query = if target.contains("routes") { "" } else { query };
                let method = method.to_uppercase();
                let (status, value) = api(gateway.admin, &method, &format!("{target}{query}"), API_SECRET).await;
                assert_eq!(status, 200, "{method} {target}{query}: {value}");
                let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
                fits(&value, schema, &target);
                asked += 1;
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                if parameter["in"] == "query" {
                    let name = parameter["name"].as_str().unwrap();
                    let (_, said) = api(gateway.admin, "GET", &format!("/api/events?{name}="), API_SECRET).await;
                    assert!(
                        said["error"].as_str().unwrap().starts_with(&format!("{name} needs")),
                        "{said}"
                    );
                }
            }
        }
    }
    assert_eq!(asked, 12);
    let (_, refused) = api(gateway.admin, "GET", "/api/events?x=1", API_SECRET).await;
    let schema = &description["paths"]["/api/queue"]["get"]["responses"]["default"]["content"]["application/json"];
    fits(&refused, &schema["schema"], "a refusal");
    assert_ne!(refused, json!({}));
}

/// Every name of ours in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("hookward_"));
    ours.map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_dashboard_speak_of_metrics_that_exist() {
    // An alert on a metric that was renamed never rings.
    let (folder, upstream) = (Folder::new(), Upstream::status(|_| 410).await);
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    request(gateway.address, &Event::of("github", "1").bytes()).await;
    gateway.listed("state=dead", 1).await;
    let exposed = request(gateway.admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let exposed = exposed.text();
    for file in ["conf/prometheus-alerts.yml", "conf/grafana-dashboard.json"] {
        for name in metrics_in(&read(file)) {
            assert!(
                exposed.contains(&format!("# TYPE {name} ")),
                "{file}: there is no {name}"
            );
        }
    }
    let dashboard: Value = serde_json::from_str(&read("conf/grafana-dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_takes_the_alert_rules() {
    // Prometheus refuses a whole file of rules for one mistake, and then nothing rings at all.
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/prometheus-alerts.yml");
    let args = ["check", "rules", rules.to_str().unwrap()];
    let ended = run("promtool", &args, b"").await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
}
