BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'small');
INSERT INTO "studies" VALUES(2,'small.confirm');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MINIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MAXIMIZE',1,1);
INSERT INTO "study_directions" VALUES(3,'MINIMIZE',2,0);
INSERT INTO "study_directions" VALUES(4,'MAXIMIZE',2,1);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_system_attributes" VALUES(1,1,'catsweep:controller:f97524b6a41c','null');
INSERT INTO "study_system_attributes" VALUES(2,1,'study:metric_names','["val/fid", "val/ssim"]');
INSERT INTO "study_system_attributes" VALUES(3,2,'catsweep:controller:5ccddc407372','null');
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'contract','{"objective": ["val/fid", "val/ssim"], "directions": ["minimize", "maximize"], "space": {"loss": "choice(l1, mse)", "optimizer.lr": "choice(0.001, 0.002, 0.003, 0.004, 1e+30)"}, "fixed": {"hparams_search": "vae_optuna", "data": "ready", "data.source": "data/ready/cats-32", "data.size": "32", "data.batch_size": "16", "depth": "shallow", "depth.halvings": "3", "width": "narrow", "width.channels": "1", "model.latent_size": "2", "metrics.samples": "16", "metrics.rung_samples": "16", "eval_every": "1", "minutes": "null", "trainer.precision": "32-true", "study": "small", "epochs": "2", "seed": "0", "model.adversarial.weight": "0.0", "activation": "silu", "optimizer": "adamw", "schedule": "constant", "model.beta": "1.0", "model.ema_decay": "0.9"}, "config": {"seed": 0, "epochs": 2, "minutes": null, "eval_every": 1, "patience": 10, "objective": ["val/fid", "val/ssim"], "study": "small", "data": {"augment": {}, "_target_": "catsweep.data.datamodule.PreparedCats", "source": "data/ready/cats-32", "size": 32, "batch_size": 16, "flip": true, "seed": 0}, "model": {"_target_": "catsweep.models.vae.VAE", "image_size": 32, "latent_size": 2, "halvings": 3, "channels": 1, "max_channels": 256, "block": {"down": {"_target_": "catsweep.models.blocks.PlainDown", "_partial_": true}, "up": {"_target_": "catsweep.models.blocks.PlainUp", "_partial_": true}, "output": {"_target_": "catsweep.models.blocks.PlainOutput", "_partial_": true}}, "normalization": {"_target_": "torch.nn.BatchNorm2d", "_partial_": true}, "activation": {"_target_": "torch.nn.SiLU", "_partial_": true}, "reconstruction_loss": "${loss.reconstruction}", "beta": 1.0, "beta_warmup": 0.05, "free_bits": 0.0, "aggregate_prior": true, "ema_decay": 0.9, "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": true, "_convert_": "all", "betas": [0.5, 0.99], "weight_decay": 0.01, "fused": true}, "schedule": {"_target_": "catsweep.models.schedules.constant", "_partial_": true, "warmup": 0.0}, "adversarial": {"_target_": "catsweep.models.adversarial_term.AdversarialTerm", "weight": 0.0, "start": 0.0, "similarity": 0.25, "discriminator": {"_target_": "catsweep.models.discriminator.ProjectedDiscriminator", "_partial_": true, "image_size": 32, "channels": 64, "normalization": {"_target_": "torch.nn.BatchNorm2d", "_partial_": true}, "activation": {"_target_": "torch.nn.LeakyReLU", "_partial_": true, "negative_slope": 0.2}, "spectral_norm": true, "network": "efficientnet_lite1", "strides": [2, 4, 8, 16], "head_channels": 64, "min_side": 96, "pixels": true}, "loss": {"_target_": "catsweep.losses.adversarial.Hinge"}, "optimizer": {"_target_": "torch.optim.Adam", "_partial_": true, "_convert_": "all", "lr": 0.0004, "betas": [0.0, 0.99], "fused": true}, "augment": {"_target_": "catsweep.models.diffaugment.DiffAugment", "policy": ["translation"]}}}, "recipe": {"lr": 0.001, "betas": [0.9, 0.999], "lion_lr": 0.0005, "sgd_lr": 0.0003}, "depth": {"halvings": 3}, "width": {"channels": 1, "max_channels": 256}, "block": {"down": {"_target_": "catsweep.models.blocks.PlainDown", "_partial_": true}, "up": {"_target_": "catsweep.models.blocks.PlainUp", "_partial_": true}, "output": {"_target_": "catsweep.models.blocks.PlainOutput", "_partial_": true}}, "normalization": {"_target_": "torch.nn.BatchNorm2d", "_partial_": true}, "activation": {"_target_": "torch.nn.SiLU", "_partial_": true}, "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": true, "_convert_": "all", "betas": [0.5, 0.99], "weight_decay": 0.01, "fused": true}, "schedule": {"_target_": "catsweep.models.schedules.constant", "_partial_": true, "warmup": 0.0}, "trainer": {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1, "precision": "32-true"}, "metrics": {"_target_": "catsweep.metrics.scorer.Scorer", "_partial_": true, "extractor": {"_target_": "catsweep.metrics.extractors.EfficientNetLite0", "backend": "auto", "threads": null, "cache_root": "data/statistics"}, "cache_root": "data/statistics", "samples": 16, "rung_samples": 16, "seed": 0, "reference": "all", "batch_size": 64}}, "facts": {"data": "42484afdcce96776f70eba21bc218037b795cc7a2f6e17252dac424cf59e8fe1", "cards": {"val/fid": {"metric": "fid", "extractor": "efficientnet_lite0", "weights_sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", "resize": "bilinear antialiased to 224", "dtype": "float32, moments float64", "reference_digest": "4d5b4ded8648a1d474808394363c52cad8056ad96404f289d48c293003a78cda", "reference_size": 20, "samples": 16, "seed": 0, "settings": {}}, "val/ssim": {"metric": "ssim", "extractor": "pixels", "weights_sha256": "", "resize": "none", "dtype": "float32, mean float64", "reference_digest": "42484afdcce96776f70eba21bc218037b795cc7a2f6e17252dac424cf59e8fe1", "reference_size": 2, "samples": 2, "seed": 0, "settings": {"window": 11, "images": "held-out reconstructions"}}}}}');
INSERT INTO "study_user_attributes" VALUES(2,1,'command','"python src/train.py -m hparams_search=vae_optuna data=ready data.source=data/ready/cats-32 data.size=32 data.batch_size=16 depth=shallow depth.halvings=3 width=narrow width.channels=1 model.latent_size=2 metrics.samples=16 metrics.rung_samples=16 metrics/judge=none eval_every=1 minutes=null trainer.threads=1 trainer.precision=32-true logger=none study=small epochs=2 ''rungs=[0.5]'' seed=0 model.adversarial.weight=0.0 activation=silu optimizer=adamw schedule=constant model.beta=1.0 model.ema_decay=0.9 ''loss=choice(l1,mse)'' ''optimizer.lr=choice(1e-3,2e-3,3e-3,4e-3,1e30)'' hydra.sweeper.n_jobs=1 hydra.sweeper.sampler.seed=1 ''hydra.sweeper.confirm={top: 1, seeds: 1}'' ''hydra.sweeper.enqueue=[{loss: l1, optimizer.lr: 1e30}, {loss: l1, optimizer.lr: 2e-3}]'' trials=3"');
INSERT INTO "study_user_attributes" VALUES(3,1,'pruning','{"pruner": {"_target_": "optuna.pruners.PercentilePruner", "percentile": 40.0, "n_startup_trials": 4}, "metrics": ["val/kid"], "directions": ["minimize"]}');
INSERT INTO "study_user_attributes" VALUES(4,1,'next_step','"Take the best model home: make best-model export STUDY=small"');
INSERT INTO "study_user_attributes" VALUES(5,1,'objective','["val/fid", "val/ssim"]');
INSERT INTO "study_user_attributes" VALUES(6,1,'sweep_dir','"outputs/small"');
INSERT INTO "study_user_attributes" VALUES(7,1,'seed','1');
INSERT INTO "study_user_attributes" VALUES(8,1,'spelling','"exact"');
INSERT INTO "study_user_attributes" VALUES(9,1,'given','"fcae6cd8f8cee5c077fb221223d9675940313acfb3cb0f22a7a3939cf70fe93c"');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'loss',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["l1", "mse"]}}');
INSERT INTO "trial_params" VALUES(2,1,'optimizer.lr',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.001, 0.002, 0.003, 0.004, 1e+30]}}');
INSERT INTO "trial_params" VALUES(3,2,'loss',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["l1", "mse"]}}');
INSERT INTO "trial_params" VALUES(4,2,'optimizer.lr',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.001, 0.002, 0.003, 0.004, 1e+30]}}');
INSERT INTO "trial_params" VALUES(5,3,'loss',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["l1", "mse"]}}');
INSERT INTO "trial_params" VALUES(6,3,'optimizer.lr',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.001, 0.002, 0.003, 0.004, 1e+30]}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{"loss": "l1", "optimizer.lr": 0.001}');
INSERT INTO "trial_system_attributes" VALUES(2,2,'fixed_params','{"loss": "l1", "optimizer.lr": 1e+30}');
INSERT INTO "trial_system_attributes" VALUES(3,3,'fixed_params','{"loss": "l1", "optimizer.lr": 0.002}');
INSERT INTO "trial_system_attributes" VALUES(4,1,'artifacts:1dc8a868-06d5-59e9-bd39-cd2be17a6b48','"{\"artifact_id\": \"1dc8a868-06d5-59e9-bd39-cd2be17a6b48\", \"filename\": \"samples-epoch_0002.png\", \"mimetype\": \"image/png\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(5,1,'artifacts:8290438b-ff7b-5f06-9611-c037a46889cd','"{\"artifact_id\": \"8290438b-ff7b-5f06-9611-c037a46889cd\", \"filename\": \"reconstructions-epoch_0002.png\", \"mimetype\": \"image/png\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(6,2,'constraints:diverged','1.0');
INSERT INTO "trial_system_attributes" VALUES(7,3,'artifacts:0f576e75-9f79-52e9-baa6-f19b1dab5205','"{\"artifact_id\": \"0f576e75-9f79-52e9-baa6-f19b1dab5205\", \"filename\": \"samples-epoch_0002.png\", \"mimetype\": \"image/png\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(8,3,'artifacts:1426bd70-ae3f-540d-b62d-241160afe73a','"{\"artifact_id\": \"1426bd70-ae3f-540d-b62d-241160afe73a\", \"filename\": \"reconstructions-epoch_0002.png\", \"mimetype\": \"image/png\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(9,4,'artifacts:1d1d6ac1-aff7-5d95-a79d-03942b6e49d0','"{\"artifact_id\": \"1d1d6ac1-aff7-5d95-a79d-03942b6e49d0\", \"filename\": \"samples-epoch_0002.png\", \"mimetype\": \"image/png\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(10,4,'artifacts:433da1b3-7542-5ea4-b4d5-c47c86e71df8','"{\"artifact_id\": \"433da1b3-7542-5ea4-b4d5-c47c86e71df8\", \"filename\": \"reconstructions-epoch_0002.png\", \"mimetype\": \"image/png\", \"encoding\": null}"');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'catsweep:attempt','0');
INSERT INTO "trial_user_attributes" VALUES(2,1,'hparams_search','"vae_optuna"');
INSERT INTO "trial_user_attributes" VALUES(3,1,'data','"ready"');
INSERT INTO "trial_user_attributes" VALUES(4,1,'data.source','"data/ready/cats-32"');
INSERT INTO "trial_user_attributes" VALUES(5,1,'data.size','"32"');
INSERT INTO "trial_user_attributes" VALUES(6,1,'data.batch_size','"16"');
INSERT INTO "trial_user_attributes" VALUES(7,1,'depth','"shallow"');
INSERT INTO "trial_user_attributes" VALUES(8,1,'depth.halvings','"3"');
INSERT INTO "trial_user_attributes" VALUES(9,1,'width','"narrow"');
INSERT INTO "trial_user_attributes" VALUES(10,1,'width.channels','"1"');
INSERT INTO "trial_user_attributes" VALUES(11,1,'model.latent_size','"2"');
INSERT INTO "trial_user_attributes" VALUES(12,1,'metrics.samples','"16"');
INSERT INTO "trial_user_attributes" VALUES(13,1,'metrics.rung_samples','"16"');
INSERT INTO "trial_user_attributes" VALUES(14,1,'metrics/judge','"none"');
INSERT INTO "trial_user_attributes" VALUES(15,1,'eval_every','"1"');
INSERT INTO "trial_user_attributes" VALUES(16,1,'minutes','"null"');
INSERT INTO "trial_user_attributes" VALUES(17,1,'trainer.threads','"1"');
INSERT INTO "trial_user_attributes" VALUES(18,1,'trainer.precision','"32-true"');
INSERT INTO "trial_user_attributes" VALUES(19,1,'logger','"none"');
INSERT INTO "trial_user_attributes" VALUES(20,1,'study','"small"');
INSERT INTO "trial_user_attributes" VALUES(21,1,'epochs','"2"');
INSERT INTO "trial_user_attributes" VALUES(22,1,'rungs','"[0.5]"');
INSERT INTO "trial_user_attributes" VALUES(23,1,'seed','"0"');
INSERT INTO "trial_user_attributes" VALUES(24,1,'model.adversarial.weight','"0.0"');
INSERT INTO "trial_user_attributes" VALUES(25,1,'activation','"silu"');
INSERT INTO "trial_user_attributes" VALUES(26,1,'optimizer','"adamw"');
INSERT INTO "trial_user_attributes" VALUES(27,1,'schedule','"constant"');
INSERT INTO "trial_user_attributes" VALUES(28,1,'model.beta','"1.0"');
INSERT INTO "trial_user_attributes" VALUES(29,1,'model.ema_decay','"0.9"');
INSERT INTO "trial_user_attributes" VALUES(30,1,'trials','"3"');
INSERT INTO "trial_user_attributes" VALUES(31,2,'catsweep:attempt','0');
INSERT INTO "trial_user_attributes" VALUES(32,2,'hparams_search','"vae_optuna"');
INSERT INTO "trial_user_attributes" VALUES(33,2,'data','"ready"');
INSERT INTO "trial_user_attributes" VALUES(34,2,'data.source','"data/ready/cats-32"');
INSERT INTO "trial_user_attributes" VALUES(35,2,'data.size','"32"');
INSERT INTO "trial_user_attributes" VALUES(36,2,'data.batch_size','"16"');
INSERT INTO "trial_user_attributes" VALUES(37,2,'depth','"shallow"');
INSERT INTO "trial_user_attributes" VALUES(38,2,'depth.halvings','"3"');
INSERT INTO "trial_user_attributes" VALUES(39,2,'width','"narrow"');
INSERT INTO "trial_user_attributes" VALUES(40,2,'width.channels','"1"');
INSERT INTO "trial_user_attributes" VALUES(41,2,'model.latent_size','"2"');
INSERT INTO "trial_user_attributes" VALUES(42,2,'metrics.samples','"16"');
INSERT INTO "trial_user_attributes" VALUES(43,2,'metrics.rung_samples','"16"');
INSERT INTO "trial_user_attributes" VALUES(44,2,'metrics/judge','"none"');
INSERT INTO "trial_user_attributes" VALUES(45,2,'eval_every','"1"');
INSERT INTO "trial_user_attributes" VALUES(46,2,'minutes','"null"');
INSERT INTO "trial_user_attributes" VALUES(47,2,'trainer.threads','"1"');
INSERT INTO "trial_user_attributes" VALUES(48,2,'trainer.precision','"32-true"');
INSERT INTO "trial_user_attributes" VALUES(49,2,'logger','"none"');
INSERT INTO "trial_user_attributes" VALUES(50,2,'study','"small"');
INSERT INTO "trial_user_attributes" VALUES(51,2,'epochs','"2"');
INSERT INTO "trial_user_attributes" VALUES(52,2,'rungs','"[0.5]"');
INSERT INTO "trial_user_attributes" VALUES(53,2,'seed','"0"');
INSERT INTO "trial_user_attributes" VALUES(54,2,'model.adversarial.weight','"0.0"');
INSERT INTO "trial_user_attributes" VALUES(55,2,'activation','"silu"');
INSERT INTO "trial_user_attributes" VALUES(56,2,'optimizer','"adamw"');
INSERT INTO "trial_user_attributes" VALUES(57,2,'schedule','"constant"');
INSERT INTO "trial_user_attributes" VALUES(58,2,'model.beta','"1.0"');
INSERT INTO "trial_user_attributes" VALUES(59,2,'model.ema_decay','"0.9"');
INSERT INTO "trial_user_attributes" VALUES(60,2,'trials','"3"');
INSERT INTO "trial_user_attributes" VALUES(61,1,'catsweep:rungs','{"1": {"val/kid": 0.6685768961906433}}');
INSERT INTO "trial_user_attributes" VALUES(62,1,'catsweep:runs','[{"slot": 0, "start": 1795810030.120602, "end": 1795810033.4684017}]');
INSERT INTO "trial_user_attributes" VALUES(63,1,'catsweep:outcome','"complete"');
INSERT INTO "trial_user_attributes" VALUES(64,3,'catsweep:attempt','0');
INSERT INTO "trial_user_attributes" VALUES(65,3,'hparams_search','"vae_optuna"');
INSERT INTO "trial_user_attributes" VALUES(66,3,'data','"ready"');
INSERT INTO "trial_user_attributes" VALUES(67,3,'data.source','"data/ready/cats-32"');
INSERT INTO "trial_user_attributes" VALUES(68,3,'data.size','"32"');
INSERT INTO "trial_user_attributes" VALUES(69,3,'data.batch_size','"16"');
INSERT INTO "trial_user_attributes" VALUES(70,3,'depth','"shallow"');
INSERT INTO "trial_user_attributes" VALUES(71,3,'depth.halvings','"3"');
INSERT INTO "trial_user_attributes" VALUES(72,3,'width','"narrow"');
INSERT INTO "trial_user_attributes" VALUES(73,3,'width.channels','"1"');
INSERT INTO "trial_user_attributes" VALUES(74,3,'model.latent_size','"2"');
INSERT INTO "trial_user_attributes" VALUES(75,3,'metrics.samples','"16"');
INSERT INTO "trial_user_attributes" VALUES(76,3,'metrics.rung_samples','"16"');
INSERT INTO "trial_user_attributes" VALUES(77,3,'metrics/judge','"none"');
INSERT INTO "trial_user_attributes" VALUES(78,3,'eval_every','"1"');
INSERT INTO "trial_user_attributes" VALUES(79,3,'minutes','"null"');
INSERT INTO "trial_user_attributes" VALUES(80,3,'trainer.threads','"1"');
INSERT INTO "trial_user_attributes" VALUES(81,3,'trainer.precision','"32-true"');
INSERT INTO "trial_user_attributes" VALUES(82,3,'logger','"none"');
INSERT INTO "trial_user_attributes" VALUES(83,3,'study','"small"');
INSERT INTO "trial_user_attributes" VALUES(84,3,'epochs','"2"');
INSERT INTO "trial_user_attributes" VALUES(85,3,'rungs','"[0.5]"');
INSERT INTO "trial_user_attributes" VALUES(86,3,'seed','"0"');
INSERT INTO "trial_user_attributes" VALUES(87,3,'model.adversarial.weight','"0.0"');
INSERT INTO "trial_user_attributes" VALUES(88,3,'activation','"silu"');
INSERT INTO "trial_user_attributes" VALUES(89,3,'optimizer','"adamw"');
INSERT INTO "trial_user_attributes" VALUES(90,3,'schedule','"constant"');
INSERT INTO "trial_user_attributes" VALUES(91,3,'model.beta','"1.0"');
INSERT INTO "trial_user_attributes" VALUES(92,3,'model.ema_decay','"0.9"');
INSERT INTO "trial_user_attributes" VALUES(93,3,'trials','"3"');
INSERT INTO "trial_user_attributes" VALUES(94,2,'catsweep:runs','[{"slot": 0, "start": 1795810033.4650354, "end": 1795810035.574382}]');
INSERT INTO "trial_user_attributes" VALUES(95,2,'catsweep:outcome','"diverged"');
INSERT INTO "trial_user_attributes" VALUES(96,2,'catsweep:message','"ImagesNotFinite: The model draws images that are not finite, so there is nothing to score: the training has diverged. Lower the learning rate, or train with trainer.precision=32-true."');
INSERT INTO "trial_user_attributes" VALUES(97,2,'catsweep:traceback','"Traceback (most recent call last):\n  File \"src/catsweep/commands.py\", line 77, in guarded\n    return task(cfg)\n           ^^^^^^^^^\n  File \"src/train.py\", line 23, in main\n    return training.run(cfg)\n           ^^^^^^^^^^^^^^^^^\n  File \"src/catsweep/training.py\", line 91, in run\n    return _train(cfg, folder) if scores is None else objective_values(scores, list(cfg.objective))\n           ^^^^^^^^^^^^^^^^^^^\n  File \"src/catsweep/training.py\", line 130, in _train\n    _fit(trainer, model, data, checkpoint)\n  File \"src/catsweep/training.py\", line 170, in _fit\n    trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/trainer/trainer.py\", line 584, in fit\n    call._call_and_handle_interrupt(\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/trainer/call.py\", line 49, in _call_and_handle_interrupt\n    return trainer_fn(*args, **kwargs)\n           ^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/trainer/trainer.py\", line 630, in _fit_impl\n    self._run(model, ckpt_path=ckpt_path, weights_only=weights_only)\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/trainer/trainer.py\", line 1079, in _run\n    results = self._run_stage()\n              ^^^^^^^^^^^^^^^^^\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/trainer/trainer.py\", line 1123, in _run_stage\n    self.fit_loop.run()\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/loops/fit_loop.py\", line 217, in run\n    self.advance()\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/loops/fit_loop.py\", line 469, in advance\n    self.epoch_loop.run(self._data_fetcher)\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/loops/training_epoch_loop.py\", line 154, in run\n    self.on_advance_end(data_fetcher)\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/loops/training_epoch_loop.py\", line 406, in on_advance_end\n    self.val_loop.run()\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/loops/utilities.py\", line 179, in _decorator\n    return loop_run(self, *args, **kwargs)\n           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/loops/evaluation_loop.py\", line 153, in run\n    return self.on_run_end()\n           ^^^^^^^^^^^^^^^^^\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/loops/evaluation_loop.py\", line 296, in on_run_end\n    self._on_evaluation_epoch_end()\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/loops/evaluation_loop.py\", line 378, in _on_evaluation_epoch_end\n    call._call_callback_hooks(trainer, hook_name)\n  File \".venv/lib/python3.11/site-packages/pytorch_lightning/trainer/call.py\", line 228, in _call_callback_hooks\n    fn(trainer, trainer.lightning_module, *args, **kwargs)\n  File \"src/catsweep/metrics/callback.py\", line 47, in on_validation_epoch_end\n    raise failure\n  File \"src/catsweep/metrics/callback.py\", line 59, in _score\n    outcome = self.scorer.rung(_generator(pl_module)), None\n              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"src/catsweep/metrics/scorer.py\", line 109, in rung\n    features = self._features(self.draw(model, self.rung_samples), device_of(model))\n                              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"src/catsweep/metrics/scorer.py\", line 222, in draw\n    images = generate(cast(Generator, FiniteImages(model)), latents, self.batch_size)\n             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"src/catsweep/models/protocol.py\", line 91, in generate\n    return torch.cat([to_uint8(model.decode(part.to(device))).cpu() for part in parts])\n                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"src/catsweep/models/protocol.py\", line 91, in <listcomp>\n    return torch.cat([to_uint8(model.decode(part.to(device))).cpu() for part in parts])\n                               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"src/catsweep/metrics/finite.py\", line 37, in decode\n    return self._checked(self.model.decode(latents))\n           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  File \"src/catsweep/metrics/finite.py\", line 49, in _checked\n    raise ImagesNotFinite(\ncatsweep.metrics.finite.ImagesNotFinite: The model draws images that are not finite, so there is nothing to score: the training has diverged. Lower the learning rate, or train with trainer.precision=32-true.\n"');
INSERT INTO "trial_user_attributes" VALUES(98,2,'catsweep:log','"outputs/small/1"');
INSERT INTO "trial_user_attributes" VALUES(99,3,'catsweep:rungs','{"1": {"val/kid": 0.6752908825874329}}');
INSERT INTO "trial_user_attributes" VALUES(100,3,'catsweep:runs','[{"slot": 0, "start": 1795810035.5667505, "end": 1795810037.904962}]');
INSERT INTO "trial_user_attributes" VALUES(101,3,'catsweep:outcome','"complete"');
INSERT INTO "trial_user_attributes" VALUES(102,4,'catsweep:confirms','0');
INSERT INTO "trial_user_attributes" VALUES(103,4,'catsweep:seed','1');
INSERT INTO "trial_user_attributes" VALUES(104,4,'catsweep:attempt','0');
INSERT INTO "trial_user_attributes" VALUES(105,4,'catsweep:rungs','{"1": {"val/kid": 0.6857416033744812}}');
INSERT INTO "trial_user_attributes" VALUES(106,4,'catsweep:runs','[{"slot": 0, "start": 1795810037.9926193, "end": 1795810040.7381024}]');
INSERT INTO "trial_user_attributes" VALUES(107,4,'catsweep:outcome','"complete"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,3.82241923915239226513e+02,'FINITE');
INSERT INTO "trial_values" VALUES(2,1,1,2.00530402362346649169e-01,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,3.84893644330283223112e+02,'FINITE');
INSERT INTO "trial_values" VALUES(4,3,1,2.00672701001167297363e-01,'FINITE');
INSERT INTO "trial_values" VALUES(5,4,0,3.91229945308549474716e+02,'FINITE');
INSERT INTO "trial_values" VALUES(6,4,1,2.02388897538185119628e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-27 20:07:10.003404','2026-11-27 20:07:13.495821');
INSERT INTO "trials" VALUES(2,1,1,'PRUNED','2026-11-27 20:07:10.181739','2026-11-27 20:07:15.594928');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-27 20:07:13.595861','2026-11-27 20:07:17.915783');
INSERT INTO "trials" VALUES(4,0,2,'COMPLETE','2026-11-27 20:07:17.949486','2026-11-27 20:07:20.755019');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
