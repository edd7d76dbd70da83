//! A kernel that lacks a feature, as far as its command line can take one away: one sentence that names it, and never a
//! service that is isolated less.

use tests::{Config, Kernel, demo_image};

/// Words for the kernel, keys of the service, and what the console says. The last is of a start, all others are of the
/// boot.
const MISSING: [(&str, &str, &str); 4] = [
    ("cgroup_disable=memory", "", "cannot use `memory`: the kernel does not offer it to cgroups"),
    ("cgroup_disable=io", "io-weight = 10", "cannot use `io`: the kernel does not offer it to cgroups"),
    (
        "sysctl.user.max_user_namespaces=0",
        "",
        "cannot make `a user namespace`: the kernel allows no further one (user.max_user_namespaces)",
    ),
    (
        "sysctl.user.max_net_namespaces=0",
        "network = \"none\"",
        "cannot start `a`: cannot clone `the container's process`: the kernel allows no further one of its namespaces",
    ),
];

#[test]
fn what_a_kernel_lacks_is_named_and_no_service_starts_without_it() {
    for (index, (words, keys, said)) in MISSING.iter().enumerate() {
        let kernel = Kernel::ALL[index % Kernel::ALL.len()];
        let ended = Config::new(&format!("feature-{index}"))
            .kernel(kernel)
            .with(&format!(
                "[kernel]\ncmdline = \"{words}\"\n[oneshot.a]\nimage = \"{}\"\ncommand = [\"echo\", \"it runs\"]\n{keys}\n",
                demo_image("busybox")
            ))
            .start()
            .wait();
        assert!(ended.output.contains(said), "{words} on {kernel:?}: {}", ended.output);
        assert!(!ended.output.contains("it runs"), "{words} on {kernel:?}: {}", ended.output);
        assert_ne!(ended.code, 0, "{words} on {kernel:?}: {}", ended.output);
    }
}
