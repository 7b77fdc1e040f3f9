use proptest::prelude::*;

use super::*;

fn grants(text: &str) -> Vec<String> {
    let policy = Policy::parse("t", text);
    assert_eq!(policy.problems, [], "{text}");
    policy.grants.iter().map(Grant::to_string).collect()
}

fn problem(text: &str) -> String {
    let policy = Policy::parse("t", text);
    policy
        .problems
        .first()
        .map(Problem::to_string)
        .unwrap_or_else(|| panic!("{text:?}: {policy:?}"))
}

#[test]
fn debians_own_file() {
    let text = "Defaults\tenv_reset\nDefaults\tmail_badpass\n\
        Defaults\tsecure_path=\"/usr/local/sbin:/usr/bin\"\n\n# User privilege specification\n\
        root\tALL=(ALL:ALL) ALL\n%sudo\tALL=(ALL:ALL) ALL\n";
    assert_eq!(
        grants(text),
        ["root ALL = (ALL : ALL) ALL", "%sudo ALL = (ALL : ALL) ALL"]
    );
    let settings: Vec<String> = Policy::parse("t", text)
        .settings
        .iter()
        .map(Setting::to_string)
        .collect();
    assert_eq!(settings[2], "Defaults secure_path=\"/usr/local/sbin:/usr/bin\"");
}

#[test]
fn aliases_are_expanded_and_negation_is_carried() {
    let text = "User_Alias OPS = alice, %wheel : DEVS = bob\nHost_Alias H = web1\nRunas_Alias DB = postgres\n\
        Cmnd_Alias SH = /bin/sh, /bin/bash\nCmnd_Alias ALLOWED = /bin/ls -l, !SH\nOPS H = (DB) ALLOWED\n";
    assert_eq!(
        grants(text),
        [
            "alice web1 = (postgres) /bin/ls -l",
            "%wheel web1 = (postgres) /bin/ls -l",
            "alice web1 = (postgres) !/bin/sh",
            "%wheel web1 = (postgres) !/bin/sh",
            "alice web1 = (postgres) !/bin/bash",
            "%wheel web1 = (postgres) !/bin/bash",
        ]
    );
}

#[test]
fn tags_and_runas_hold_for_the_rest_of_the_list() {
    let text = "a ALL = (root) NOPASSWD: /a, SETENV: /b, (bob) PASSWD: /c : other = /d\n";
    assert_eq!(
        grants(text),
        [
            "a ALL = (root) NOPASSWD: /a",
            "a ALL = (root) NOPASSWD: SETENV: /b",
            "a ALL = (bob) PASSWD: SETENV: /c",
            "a other = (root) /d",
        ]
    );
}

#[test]
fn arguments_are_any_none_patterns_or_regular_expressions() {
    let command = |text: &str| {
        Policy::parse("t", &format!("a ALL = {text}\n")).grants[0]
            .command
            .clone()
    };
    assert_eq!(command("/bin/x").arguments, Arguments::Any);
    assert_eq!(command("/bin/x \"\"").arguments, Arguments::None);
    assert_eq!(
        command(r"/bin/x  a\,b \*  c\:d").arguments,
        Arguments::Pattern(r"a,b \* c:d".to_string())
    );
    let regex = command(r"/bin/x ^(a|b) [0-9]{2,3} x:y$").arguments;
    assert_eq!(regex, Arguments::Regex("^(a|b) [0-9]{2,3} x:y$".to_string()));
    assert_eq!(command("^/bin/(x|y)$ ^z$").path, "^/bin/(x|y)$");
    assert_eq!(command("/usr/bin/").path, "/usr/bin/");
    assert_eq!(command("sha256:abc /bin/x").digests, ["sha256:abc"]);
    assert_eq!(command("sudoedit /etc/x").path, "sudoedit");
}

#[test]
fn lines_comments_and_ids() {
    let text = "#1000 ALL = /a # a comment \\\n%#27 ALL = \\\n   /b, \\\n   /c\n# a ALL = /d \\\n+net ALL = /e\n\
        \"%domain users\" ALL = /f\n%:ad\\ group ALL = /g\n";
    assert_eq!(
        grants(text),
        [
            "#1000 ALL = (root) /a",
            "%#27 ALL = (root) /b",
            "%#27 ALL = (root) /c",
            "+net ALL = (root) /e",
            "%domain users ALL = (root) /f",
            "%:ad group ALL = (root) /g",
        ]
    );
    assert_eq!(
        Policy::parse("t", "\n\na ALL = \\\n /b\n").grants[0].at.to_string(),
        "t:3"
    );
}

#[test]
fn defaults_of_every_kind() {
    let text = "Defaults:a !authenticate, env_keep += \"A B\"\nDefaults>root timestamp_timeout=0\nDefaults@h x-=y\n\
        Defaults!/bin/ls noexec\n";
    let settings: Vec<String> = Policy::parse("t", text)
        .settings
        .iter()
        .map(Setting::to_string)
        .collect();
    assert_eq!(
        settings,
        [
            "Defaults:a !authenticate",
            "Defaults:a env_keep+=\"A B\"",
            "Defaults>root timestamp_timeout=\"0\"",
            "Defaults@h x-=\"y\"",
            "Defaults!/bin/ls noexec",
        ]
    );
}

#[test]
fn what_is_not_understood_is_a_problem() {
    for (text, what) in [
        ("a ALL\n", "\"=\" expected"),
        ("a ALL = ls\n", "neither an absolute path nor an alias"),
        ("a ALL = NOPE\n", "alias NOPE is not defined"),
        ("Cmnd_Alias A = B\nCmnd_Alias B = A\nx ALL = A\n", "circle"),
        ("Cmnd_Alias A = /a\nCmnd_Alias A = /b\n", "defined again"),
        ("a ALL = (root /bin/x\n", "expected"),
        ("Defaults secure_path=\"/usr\n", "string"),
        ("a ALL = /bin/x ^abc\n", "without `$`"),
        ("@include /etc/x\n", "include"),
        ("a ALL = /bin/x\u{1}\n", "control"),
        ("a\n", "expected"),
    ] {
        assert!(problem(text).contains(what), "{text:?}: {}", problem(text));
    }
}

#[test]
fn aliases_that_multiply_are_bounded() {
    let mut text = String::from("Cmnd_Alias A0 = /bin/x, /bin/y\n");
    for n in 1..30 {
        text += &format!("Cmnd_Alias A{n} = A{}, A{}\n", n - 1, n - 1);
    }
    text += "a ALL = A29\n";
    assert!(problem(&text).contains("more than"));
}

proptest! {
    #[test]
    fn never_panics(text in "[aA%#!:=(),\"\\\\^$ \\n@/.*]{0,80}") {
        Policy::parse("t", &text);
    }

    #[test]
    fn never_panics_on_near_sudoers(
        words in proptest::collection::vec(
            prop_oneof![
                Just("Defaults"), Just("Cmnd_Alias"), Just("A"), Just("="), Just("ALL"), Just("("), Just(")"), Just(","),
                Just(":"), Just("NOPASSWD:"), Just("/bin/ls"), Just("\n"), Just("!"), Just("\\\n"), Just("^x$"), Just("\""),
                Just("#include"), Just("%g"), Just("CWD=/"), Just("env_keep+="), Just("sha256:a"),
            ],
            0..40,
        )
    ) {
        Policy::parse("t", &words.join(" "));
    }

    /// Only specifications grant, each at most its multiplied lists; nobody gets a right that the text does not name.
    #[test]
    fn grants_no_more_than_is_written(
        users in proptest::collection::vec("[a-z]{1,6}", 1..4),
        commands in proptest::collection::vec("/bin/[a-z]{1,6}", 1..4),
    ) {
        let text = format!("Cmnd_Alias C = {}\n{} ALL = (root) C\n", commands.join(", "), users.join(", "));
        let policy = Policy::parse("t", &text);
        prop_assert_eq!(policy.grants.len(), users.len() * commands.len());
        for grant in &policy.grants {
            prop_assert!(users.contains(&grant.user.name) && commands.contains(&grant.command.path));
            prop_assert!(grant.tags.is_empty() && grant.users[0].name == "root");
        }
    }

    /// A grant formatted as sudoers parses as the same grant.
    #[test]
    fn a_written_grant_is_read_back(
        user in "[%+]?[a-z][a-z0-9-]{0,8}",
        runas in proptest::collection::vec("[a-z]{1,5}", 1..3),
        tags in proptest::sample::subsequence(vec!["NOEXEC", "NOPASSWD", "SETENV"], 0..3),
        path in "/[a-z/]{1,10}[a-z]",
        arguments in proptest::option::of("[a-z0-9*./-]{1,8}( [a-z0-9*./-]{1,8}){0,3}"),
    ) {
        let grant = Grant {
            user: Member { negated: false, name: user },
            host: Member { negated: false, name: "ALL".to_string() },
            users: runas.into_iter().map(|name| Member { negated: false, name }).collect(),
            groups: Vec::new(),
            tags: tags.into_iter().map(str::to_string).collect(),
            options: BTreeSet::new(),
            command: Command {
                negated: false,
                digests: Vec::new(),
                path,
                arguments: arguments.map_or(Arguments::Any, Arguments::Pattern),
            },
            at: Location { file: "t".to_string(), line: 1 },
        };
        let policy = Policy::parse("t", &format!("{grant}\n"));
        prop_assert_eq!(&policy.problems, &[]);
        prop_assert!(policy.grants[0].same(&grant), "{} / {}", policy.grants[0], grant);
    }
}
