"""The main job on one machine, by the commands a person would type: `edgeclave demo`."""
