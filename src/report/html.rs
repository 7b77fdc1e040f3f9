//! Renders the result of a build as one self-contained HTML page for a CI job's artifacts.

use minijinja::value::Serde;
use minijinja::{Environment, Value, context};

use crate::build::result::BuildReport;

const TEMPLATE: &str = include_str!("report.html.j2");

pub fn build(report: &BuildReport) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.add_filter("mib", |bytes: u64| {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    });
    environment.add_filter("seconds", |seconds: f64| format!("{seconds:.1} s"));
    environment.add_template("report.html", TEMPLATE)?;
    environment
        .get_template("report.html")?
        .render(context! { report => Value::from(Serde(report)) })
}
