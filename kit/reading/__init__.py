"""Reading what others wrote: texts, JSON, TOML, paths. Only KitErrors come out.

    path_of("~/images", "train_data_dir")            kit.reading.paths
    read_json(path), from_json(text, "run.json")     kit.reading.texts
    Table(value, "run.json").whole("step")           kit.reading.fields

tests/test_house.py sees to it that nobody else calls json.loads, tomllib.loads or expanduser.
"""
