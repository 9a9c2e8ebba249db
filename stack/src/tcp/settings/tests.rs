//! The table of settings against itself, and text against the table.

use proptest::prelude::*;

use super::*;

#[test]
fn each_default_can_be_written_and_read_back() {
    for setting in Settings::ALL {
        let mut settings = Settings::default();
        let text = setting.default_value();
        setting.set(&mut settings, &text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(settings, Settings::default(), "{}", setting.name());
    }
}

#[test]
fn both_ends_of_each_range_are_taken_and_what_lies_beyond_is_not() {
    for setting in Settings::ALL {
        let all = |number: i64| vec![number.to_string(); setting.count].join(" ");
        let (least, most) = (*setting.range().start(), *setting.range().end());
        for number in [least, most] {
            let mut settings = Settings::default();
            setting.set(&mut settings, &all(number)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(setting.value(&settings), all(number));
        }
        for number in [least - 1, most + 1, i64::MAX, i64::MIN] {
            let mut settings = Settings::default();
            let error = setting.set(&mut settings, &all(number)).unwrap_err().to_string();
            assert!(
                error.contains(setting.name()) && error.contains(&setting.allowed()),
                "{error}"
            );
            assert_eq!(settings, Settings::default(), "changed by what was refused");
        }
    }
}

#[test]
fn each_has_a_name_of_its_own_and_says_what_it_means() {
    for (at, setting) in Settings::ALL.iter().enumerate() {
        assert!(Settings::ALL[..at].iter().all(|other| other.name() != setting.name()));
        assert!(setting.meaning().ends_with('.'), "{}: {:?}", setting.name(), setting.meaning());
        assert!(!setting.meaning().contains("  "), "{:?}", setting.meaning());
    }
}

#[test]
fn names_may_have_the_path_of_the_sysctl() {
    for name in ["tcp_rmem", "net.ipv4.tcp_rmem", "net/ipv4/tcp_rmem", " tcp_rmem "] {
        let mut settings = Settings::default();
        settings.set(name, "4096\t131072 6291456\n").unwrap();
        assert_eq!(settings.tcp_rmem, [4096, 131_072, 6_291_456]);
    }
    assert_eq!(Setting::named("net.core.somaxconn").unwrap().name(), "somaxconn");
    assert!(Setting::named("net.core.tcp_rmem").is_err(), "it is not there");
    assert_eq!(Setting::named("tcp_low_latency").unwrap().sysctl(), None);
}

#[test]
fn a_name_that_is_nearly_right_is_told_the_right_one() {
    for (given, meant) in [
        ("tcp_rmen", Some("tcp_rmem")),
        ("rmem", Some("tcp_rmem")),
        ("TCP_SACK", Some("tcp_sack")),
        ("tcp_fin_timeuot", Some("tcp_fin_timeout")),
        ("net.ipv4.tcp_synack_retry", Some("tcp_synack_retries")),
        ("somaxcon", Some("somaxconn")),
        ("tcp_congestion_control", None),
        ("", None),
        ("tcp_", None),
        ("x", None),
    ] {
        match Settings::default().set(given, "1") {
            Err(SettingError::Unknown { name, nearest }) => {
                assert_eq!((name.as_str(), nearest), (given, meant));
            }
            other => panic!("{given}: {other:?}"),
        }
    }
}

#[test]
fn what_is_no_value_is_refused_with_what_would_be() {
    for (name, value, sentence) in [
        ("tcp_sack", "", "tcp_sack takes 0 or 1; not \"\""),
        ("tcp_sack", "1 1", "tcp_sack takes 0 or 1; not \"1 1\""),
        (
            "tcp_synack_retries",
            "256",
            "tcp_synack_retries takes a number from 0 to 255; not \"256\"",
        ),
        (
            "tcp_fin_timeout",
            "1.5",
            "tcp_fin_timeout takes a number of seconds from 0 to 2147483; not \"1.5\"",
        ),
        (
            "tcp_rmem",
            "4096 131072",
            "tcp_rmem takes 3 numbers of bytes from 1 to 2147483647, as in \"4096 131072 33554432\"; \
             not \"4096 131072\"",
        ),
    ] {
        let error = Settings::default().set(name, value).unwrap_err();
        assert_eq!(error.to_string(), sentence);
    }
}

proptest! {
    #[test]
    fn whatever_is_written_either_holds_or_changes_nothing(name in ".{0,40}", value in ".{0,60}") {
        let mut settings = Settings::default();
        if settings.set(&name, &value).is_err() {
            prop_assert_eq!(settings, Settings::default());
        }
    }

    #[test]
    fn whatever_numbers_are_written_are_in_range_or_refused(
        at in 0..Settings::ALL.len(),
        numbers in proptest::collection::vec(any::<i64>().prop_map(|n| n >> (n & 63)), 0..5),
    ) {
        let setting = &Settings::ALL[at];
        let text = numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
        let mut settings = Settings::default();
        match setting.set(&mut settings, &text) {
            Ok(()) => {
                prop_assert_eq!(setting.value(&settings), text);
                prop_assert!(numbers.iter().all(|n| setting.range().contains(n)));
            }
            Err(_) => prop_assert_eq!(settings, Settings::default()),
        }
    }
}
