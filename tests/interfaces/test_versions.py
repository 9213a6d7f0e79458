from interfaces.versions import package_versions


def test_a_missing_package_is_told_as_such() -> None:
    versions = package_versions(["numpy", "not-a-package-here"])
    assert versions["numpy"][0].isdigit()
    assert versions["not-a-package-here"] == "not installed"
