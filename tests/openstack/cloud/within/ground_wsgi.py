"""Runs within uwsgi: the API of the service that GROUND_SERVICE names."""

import importlib
import os
import sys

_APPLICATIONS = {
    "keystone": "keystone.server.wsgi:initialize_public_application",
    "glance": "glance.common.wsgi_app:init_app",
    "placement": "placement.wsgi:init_application",
    "nova": "nova.api.openstack.compute.wsgi:init_application",
    "cinder": "cinder.wsgi.wsgi:initialize_application",
}

# Cinder reads where its files are from the command line alone.
if os.environ["GROUND_SERVICE"] == "cinder":
    sys.argv[1:] = ["--config-file", os.environ["GROUND_CINDER_CONFIG"]]

_module, _, _function = _APPLICATIONS[os.environ["GROUND_SERVICE"]].partition(":")
application = getattr(importlib.import_module(_module), _function)()
