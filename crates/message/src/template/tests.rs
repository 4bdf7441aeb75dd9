use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::error::Problem;

fn check(source: &str) -> Result<(), TemplateError> {
    Templates::new()
        .add("message.text".to_owned(), source, Place::Body)
        .map(drop)
}

fn render(source: &str) -> Result<String, String> {
    let mut templates = Templates::new();
    let template = templates
        .add(HTML.to_owned(), source, Place::Body)
        .map_err(|error| error.to_string())?;
    let variables: BTreeMap<String, serde_json::Value> = serde_json::from_value(json!({
        "name": "Ada", "price": 2, "text": "a-b-a", "orders": [{ "title": "Engine", "n": 2 }, { "title": "Notes", "n": 1 }],
        "tags": ["x", "y<"], "yes": true, "size": "12.50",
    }))
    .unwrap();
    let variables = Variables::new(&"ada@example.org".parse().unwrap(), &variables).unwrap();
    templates
        .render(&template, &variables)
        .map_err(|error| error.to_string())
}

#[test]
fn what_mail_templates_are_made_of() {
    for (source, expected) in [
        ("{{ name }} {{ name ~ '!' }} {{ 'a' + 'b' }}", "Ada Ada! ab"),
        (
            "{{ price * 3 }} {{ 2 * 3 }} {{ size|float * price|int }} {{ '-' * 3 }}",
            "6 6 25.0 ---",
        ),
        (
            "{{ price + 1 }} {{ 7 // 2 }} {{ 7 % 2 }} {{ 2 ** 8 }} {{ -price }}",
            "3 3 1 256 -2",
        ),
        ("{{ 12.5|round(1) }} {{ (-1)|abs }}", "12.5 1"),
        ("{{ name|lower|title|e|trim }} {{ name|upper|capitalize }}", "Ada Ada"),
        (
            "{{ text|replace('-', '+') }} {{ text|split('-')|join(', ') }}",
            "a+b+a a, b, a",
        ),
        (
            "{{ name|default('friend') }} {{ nick|default(name) }} {{ nick|d('x', true) }}",
            "Ada Ada x",
        ),
        (
            "{{ orders|length }} {{ orders[0].title }} {{ orders|first|items|length }}",
            "2 Engine 2",
        ),
        (
            "{% for o in orders %}{{ loop.index }}. {{ o.title }} × {{ o.n * 2 }}\n{% endfor %}",
            "1. Engine × 4\n2. Notes × 2\n",
        ),
        (
            "{% for o in orders if o.n > 1 %}{{ o.title }}{% else %}none{% endfor %}",
            "Engine",
        ),
        (
            "{% for i in range(3) %}{{ i * price|int }}{{ loop.cycle('a', 'b') }}{% endfor %}",
            "0a2b4a",
        ),
        (
            "{% for k, v in orders[0]|dictsort %}{{ k }}={{ v }} {% endfor %}",
            "n=2 title=Engine ",
        ),
        (
            "{% if yes and name == 'Ada' and 'x' in tags %}1{% elif yes %}2{% else %}3{% endif %}",
            "1",
        ),
        (
            "{{ 'yes' if yes else 'no' }} {{ name is defined }} {{ name is startingwith('A') }}",
            "yes True True",
        ),
        (
            "{% set total = price + 1 %}{{ total }} {% set total = total * 2 %}{{ total }}",
            "3 6",
        ),
        (
            "{{ name[0] }} {{ name[:2] }} {{ [1, name]|last }} {{ {'a': name}.a }}",
            "A Ad Ada Ada",
        ),
        (
            "{{ '<' }} {{ '<'|safe }} {{ '<'|e }} {{ tags|join(', ') }}",
            "&lt; < &lt; x, y&lt;",
        ),
        ("{{ 'a b/ü&'|urlencode }}", "a%20b&#x2f;%C3%BC%26"),
        ("{# note #}{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("a\n", "a\n"),
        ("{% set a = name ~ name %}{% set a = a ~ a %}{{ a|length }}", "12"),
        (
            "{% for i in range(4) %}{% set name = name ~ name %}{% endfor %}{{ name }}",
            "Ada",
        ),
    ] {
        assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn statements_that_mail_templates_do_not_have() {
    for (source, statement) in [
        ("{% with a = 1 %}{% endwith %}", "with"),
        ("{% set a %}b{% endset %}", "set … endset"),
        ("{% set a, b = c %}", "set of several names"),
        ("{% filter upper %}a{% endfilter %}", "filter"),
        ("{% autoescape false %}{% endautoescape %}", "autoescape"),
        ("{% macro a() %}{% endmacro %}", "macro"),
        ("{% block a %}{% endblock %}", "block"),
        ("{% extends 'a' %}", "extends"),
        ("{% include 'a' %}", "include"),
        ("{% import 'a' as b %}", "import"),
        ("{% from 'a' import b %}", "import"),
        ("{% for a in b recursive %}{% endfor %}", "a recursive loop"),
        ("{% do a() %}", "do"),
        ("{{ range(*a) }}", "* before an argument"),
    ] {
        let expected = TemplateError::at("message.text", 1, Problem::Statement(statement));
        assert_eq!(check(source), Err(expected), "{source}");
    }
}

#[test]
fn functions_that_mail_templates_do_not_have() {
    for source in [
        "{{ namespace() }}",
        "{{ dict() }}",
        "{{ debug() }}",
        "{{ a() }}",
        "{{ a.b() }}",
        "{{ a[0]() }}",
    ] {
        let error = check(source).unwrap_err();
        assert!(matches!(error.problem, Problem::Function(_)), "{source}: {error}");
    }
    let filters = [
        "indent(9)",
        "map('upper')",
        "format(a)",
        "pprint",
        "batch(9)",
        "groupby('a')",
        "nope",
    ];
    for filter in filters {
        let error = check(&format!("{{{{ a|{filter} }}}}")).unwrap_err();
        assert!(matches!(error.problem, Problem::Filter(_)), "{filter}: {error}");
    }
}

#[test]
fn every_test_of_the_language_exists_in_the_engine() {
    for test in language::TESTS {
        let argument = match test {
            "divisibleby" | "startingwith" | "endingwith" | "eq" | "equalto" | "ne" | "lt" | "lessthan" | "le"
            | "gt" | "greaterthan" | "ge" | "sameas" => "(1)",
            "in" => "([1])",
            _ => "",
        };
        let result = render(&format!("{{{{ 1 is {test}{argument} }}}}"));
        assert!(
            !result.as_ref().is_err_and(|error| error.contains("unknown")),
            "{test}: {result:?}"
        );
    }
}

#[test]
fn values_stay_small() {
    let doubling = "{% set a = a ~ a %}".repeat(7);
    let conditional = "{% if b %}{% set a = a ~ a %}{% endif %}".repeat(7);
    let many = format!("{{{{ a{} }}}}", " ~ a".repeat(64));
    let lists = format!("{}{{{{ a|join }}}}", "{% set a = [a, a] %}".repeat(7));
    for source in [
        doubling.as_str(),
        &conditional,
        &many,
        &lists,
        "{{ 'x' * 100000000 }}",
        "{{ 100000000 * 'x' }}",
        "{{ [1] * 100000000 }}",
        "{{ a * 100 }}",
        "{{ a|join(a) }}",
        "{{ range(100000)|join('long separator') }}",
        "{{ a|upper|upper|upper|upper }}",
        "{% for b in c %}{{ b * 1000 }}{% endfor %}",
    ] {
        let error = check(source).unwrap_err();
        assert!(matches!(error.problem, Problem::LargeValue { .. }), "{source}: {error}");
    }
    for source in ["{{ a * b }}", "{{ a * b|int }}", "{{ 'x' * (9 * 9) }}", "{{ a * -b }}"] {
        assert_eq!(
            check(source),
            Err(TemplateError::at("message.text", 1, Problem::NotNumbers)),
            "{source}"
        );
    }
}

/// The stack of a thread that a server has; the debug build takes most of it.
const STACK: usize = 2 * 1024 * 1024;

#[test]
fn deep_templates_are_refused_before_they_overflow_the_stack() {
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || {
            for (head, part, tail) in [
                ("{{ a", "~a", " }}"),
                ("{{ a", "|e", " }}"),
                ("{{ a", ".b", " }}"),
                ("{{ a", "[0]", " }}"),
                ("{{ a", " and a", " }}"),
                ("{{ a", "**a", " }}"),
                ("{{ a", " if b else a", " }}"),
                ("{{ ", "not ", "a }}"),
                ("{{ ", "-", "a }}"),
                ("{{ ", "(", "a"),
                ("{{ ", "[", "a"),
                ("{% if a %}", "{% elif b %}", "{% endif %}"),
                ("", "{% if a %}", ""),
                ("", "{% for a in b %}", ""),
                ("{% set a = a", "~a", " %}"),
            ] {
                for times in [500, 5_000, 100_000] {
                    assert!(check(&format!("{head}{}{tail}", part.repeat(times))).is_err());
                }
            }
            // The deepest that is allowed in every way at once.
            let expression = format!("{{{{ {} a }}}}", "not ".repeat(250));
            let inner = format!("{{% if a %}}{}{expression}{{% endif %}}", "{% elif b %}".repeat(100));
            let deepest = format!("{}{inner}{}", "{% if a %}".repeat(70), "{% endif %}".repeat(70));
            check(&deepest).unwrap();
            render(&deepest.replace('a', "name").replace("% elif b", "% elif name")).unwrap();
        })
        .unwrap()
        .join()
        .unwrap();
}
