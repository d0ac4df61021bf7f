//! `longship bench report`: what benches answered, gathered in a file for programs and a page for
//! people.
//!
//! Reads every `NAME.json` of a folder, each one bench's line of JSON; writes `report.json`, an array
//! of them, and `report.html`, which needs nothing beside itself. Figures of one bench that are
//! counted alike share a scale. Of a bench that gives plain numbers, each number is a figure.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::report;

const REPORT: &str = "report.json";
/// Width of a plot in pixels.
const WIDTH: f64 = 360.0;

/// Gathers what benches answered in a folder in a report for programs and a page for people.
#[derive(clap::Args)]
pub(crate) struct PageArgs {
    /// Folder of the answers, and of the report.
    folder: PathBuf,
}

/// Runs the command.
pub(super) fn command(args: &PageArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut answers = Vec::new();
    for entry in fs::read_dir(&args.folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(bench) = name.strip_suffix(".json").filter(|_| name != REPORT) else { continue };
        let text = fs::read_to_string(&path)?;
        let answer = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
        answers.push(uniform(bench, answer.unwrap_or_default()));
    }
    answers.sort_by_key(|answer| answer["bench"].as_str().unwrap_or_default().to_owned());
    fs::write(args.folder.join(REPORT), serde_json::to_string_pretty(&answers)?)?;
    let page = args.folder.join("report.html");
    fs::write(&page, html(&answers))?;
    report::print(&format!("{} benches: {}", answers.len(), page.display()));
    Ok(ExitCode::SUCCESS)
}

/// An answer in the shape of [`super::answer`].
fn uniform(bench: &str, answer: Value) -> Value {
    if answer.get("figures").is_some() {
        return answer;
    }
    let numbers = answer.as_object().into_iter().flatten().filter_map(|(name, value)| {
        let runs = [value.as_f64()?];
        Some((name.clone(), json!({ "median": runs[0], "runs": runs, "unit": "" })))
    });
    let figures: serde_json::Map<_, _> = numbers.collect();
    json!({ "bench": bench, "facts": {}, "figures": figures })
}

fn html(answers: &[Value]) -> String {
    let mut page = String::from(
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Longship benches</title><style>\
         body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;\
         color:#222}h2{margin:2em 0 .3em}td{padding:.1em .8em .1em 0;vertical-align:middle}\
         .fact{color:#666;font-size:13px}.met{color:#0a7d32}.missed{color:#b3261e}\
         .number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}</style>\
         <h1>Longship benches</h1><p>Each bar is the median of the runs; dots are the runs \
         themselves. Figures of one bench that are counted alike share a scale.</p>",
    );
    answers.iter().for_each(|answer| section(answer, &mut page));
    page
}

fn section(answer: &Value, page: &mut String) {
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let _ = write!(page, "<h2>{}</h2><table>", text(&answer["bench"]));
    for (name, fact) in answer["facts"].as_object().into_iter().flatten() {
        let _ = write!(page, "<tr class=fact><td>{}<td>{}", escape(name), text(fact));
    }
    page.push_str("</table><table>");
    let figures = || answer["figures"].as_object().into_iter().flatten();
    for (name, figure) in figures() {
        let alike = figures().filter(|(_, other)| other["unit"] == figure["unit"]);
        // Numbers without a unit have nothing in common.
        let alike = alike.filter(|(other, _)| figure["unit"] != "" || *other == name);
        let most = alike.flat_map(|(_, other)| runs(other)).fold(0.0, f64::max);
        let median = figure["median"].as_f64().unwrap_or_default();
        let wanted = figure.get("wanted").map(|wanted| {
            let class = if figure["met"] == true { "met" } else { "missed" };
            format!("<span class={class}>{}</span>", text(wanted))
        });
        let _ = write!(
            page,
            "<tr><td>{}<td class=number>{}<td class=fact>{}<td>{}<td>{}",
            escape(name),
            number(median),
            text(&figure["unit"]),
            plot(median, &runs(figure), most),
            wanted.unwrap_or_default()
        );
    }
    page.push_str("</table>");
}

fn runs(figure: &Value) -> Vec<f64> {
    figure["runs"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// A bar as long as the median, and a dot for each run.
fn plot(median: f64, runs: &[f64], most: f64) -> String {
    let x = |figure: f64| if most > 0.0 { figure / most * (WIDTH - 8.0) } else { 0.0 };
    let dots: String = runs
        .iter()
        .map(|&run| format!("<circle cx={:.1} cy=8 r=3 fill='#1a4f8b'/>", x(run) + 4.0))
        .collect();
    format!(
        "<svg width={WIDTH} height=16><rect x=0 y=3 width={:.1} height=10 fill='#a8c8ec'/>{dots}</svg>",
        x(median) + 4.0
    )
}

fn number(figure: f64) -> String {
    match figure {
        1000.0.. => report::count(figure as u64),
        _ => format!("{figure:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_every_figure_of_both_shapes() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let figure = "{\"median\":2.5,\"runs\":[2.0,2.5],\"unit\":\"ratio\",\
                      \"wanted\":\"at least 3.00\",\"met\":false}";
        let ship = "{\"bench\":\"ship\",\"facts\":{\"kernel\":\"<6>\"},\"figures\":{\"vs\":X}}";
        put("ship.json", &format!("noise\n{}\n", ship.replace('X', figure)));
        put("write.json", "{\"write_vs_fio\":0.93,\"storage\":[1,2]}\n");
        let args = PageArgs { folder: folder.path().to_owned() };
        command(&args).unwrap();
        let page = fs::read_to_string(folder.path().join("report.html")).unwrap();
        for expected in ["<h2>ship</h2>", "&lt;6&gt;", "class=missed>at least 3.00", "write_vs_fio"]
        {
            assert!(page.contains(expected), "{expected}: {page}");
        }
        let json = fs::read_to_string(folder.path().join(REPORT)).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json[0]["figures"]["vs"]["median"], 2.5);
        assert_eq!(json[1]["figures"]["write_vs_fio"]["median"], 0.93);
        // A second time the report is not taken for an answer.
        command(&args).unwrap();
    }
}
